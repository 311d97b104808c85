"""What a gateway goes on with when the control plane is away, or is back and has not heard of all nodes yet. Pure."""

from __future__ import annotations

from dataclasses import replace

from controlplane.model import Routes


def aged(routes: Routes) -> Routes:
    """Returns what is still known of routes that nobody keeps up to date: where engines were, and not how busy."""
    return replace(
        routes,
        replicas={
            name: tuple(replace(each, is_stale=True) for each in found) for name, found in routes.replicas.items()
        },
        is_current=False,
    )


def joined(now: Routes, before: Routes) -> Routes:
    """Returns the routes as the control plane tells them now, and of its silent replicas what was known before.

    A control plane that has just started knows what is placed, and of no engine until its node reports.
    """
    known = {each.replica_uid: each for found in before.replicas.values() for each in found}
    replicas, silent = dict(now.replicas), dict(now.silent)
    for deployment, indexes in now.silent.items():
        found = now.replicas.get(deployment, ())
        served = {each.index for each in found if each.is_ready}  # by another engine, so that the old one is not picked
        kept = [
            replace(known[uid], is_stale=True, is_ready=known[uid].is_ready and index not in served)
            for uid, index in indexes.items()
            if uid in known
        ]
        replicas[deployment] = (*found, *kept)
        silent[deployment] = {uid: index for uid, index in indexes.items() if uid not in known}
    return replace(now, replicas=replicas, silent={name: left for name, left in silent.items() if left})
