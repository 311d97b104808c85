"""Who goes next: requests wait in the gateway, not in engines, and tenants have their shares there."""
