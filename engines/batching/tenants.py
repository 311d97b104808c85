"""Counts what tenants were given, so that the one that had the least is served next."""

from __future__ import annotations

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 4  # a prompt's tokens are computed many at a time, an output's one in each step
IDLE_COUNT = 256  # accounts of tenants without sequences that are kept at the most


class Account:
    """What one tenant was given."""

    __slots__ = ("sequence_count", "token_count")

    def __init__(self) -> None:
        self.token_count = 0  # weighted
        self.sequence_count = 0  # waiting or running


class Tenants:
    """Keeps an account for each tenant with sequences, and for those that had more than these.

    Of too many of the latter, those that had the least are forgotten first: they are forgiven the least.

    Source: the virtual token counter of Sheng et al. 2024, arXiv:2401.00588.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def enter(self, tenant: str) -> Account:
        """Counts one more sequence. A tenant that had none is owed nothing for that time: it starts at the least."""
        account = self._accounts.setdefault(tenant, Account())
        if account.sequence_count == 0:
            account.token_count = max(account.token_count, self._least())
        account.sequence_count += 1
        return account

    def leave(self, account: Account) -> None:
        """Counts one sequence less."""
        account.sequence_count -= 1
        if account.sequence_count == 0:  # whoever had no more than the least would come back to the least anyway
            least = self._least() if any(each.sequence_count for each in self._accounts.values()) else None
            self._accounts = {
                name: each
                for name, each in self._accounts.items()
                if each.sequence_count or (least is not None and each.token_count > least)
            }
            idle = [name for name, each in self._accounts.items() if not each.sequence_count]
            if len(idle) > IDLE_COUNT:
                del self._accounts[min(idle, key=lambda name: self._accounts[name].token_count)]

    def _least(self) -> int:
        return min((each.token_count for each in self._accounts.values() if each.sequence_count), default=0)
