"""What tests share: processes of ours, started for real."""
