from engines.batching.tenants import IDLE_COUNT, Tenants


def test_all_sequences_of_a_tenant_have_one_account() -> None:
    tenants = Tenants()
    assert tenants.enter("a") is tenants.enter("a")
    assert tenants.enter("a") is not tenants.enter("b")


def test_a_tenant_that_comes_anew_starts_at_the_least_of_those_that_have_sequences() -> None:
    tenants = Tenants()
    for name, token_count in (("a", 70), ("b", 30)):
        tenants.enter(name).token_count = token_count
    assert tenants.enter("c").token_count == 30


def test_the_first_tenant_starts_at_nothing() -> None:
    assert Tenants().enter("a").token_count == 0


def test_a_tenant_that_comes_again_is_owed_nothing_for_the_time_between() -> None:
    tenants = Tenants()
    first, other = tenants.enter("a"), tenants.enter("b")
    first.token_count = 10
    other.token_count = 50
    tenants.leave(first)
    assert tenants.enter("a").token_count == 50


def test_a_tenant_that_leaves_and_comes_again_is_not_forgiven_what_it_had() -> None:
    tenants = Tenants()
    first, other = tenants.enter("a"), tenants.enter("b")
    first.token_count = 90
    other.token_count = 50
    tenants.leave(first)
    assert tenants.enter("a").token_count == 90


def test_when_all_have_left_nothing_is_kept() -> None:
    tenants = Tenants()
    first, other = tenants.enter("a"), tenants.enter("b")
    first.token_count = 90
    tenants.leave(first)
    tenants.leave(other)
    assert tenants.enter("a").token_count == 0


def test_accounts_that_say_no_more_than_the_least_are_not_kept() -> None:
    tenants = Tenants()
    stays = tenants.enter("stays")
    for number in range(100):
        account = tenants.enter(f"guest-{number}")
        account.token_count += 1
        tenants.leave(account)
    assert len(tenants) == 101
    stays.token_count = 1
    tenants.leave(tenants.enter("last"))
    assert len(tenants) == 1


def test_accounts_of_those_that_left_do_not_pile_up_beside_one_that_stands_still() -> None:
    tenants = Tenants()
    tenants.enter("stands still")
    for number in range(IDLE_COUNT + 1_000):
        account = tenants.enter(f"guest-{number}")
        account.token_count += 5
        tenants.leave(account)
    assert len(tenants) == IDLE_COUNT + 1


def test_those_that_had_the_least_are_forgotten_first() -> None:
    tenants = Tenants()
    tenants.enter("stands still")
    for number in range(IDLE_COUNT + 10):
        account = tenants.enter(f"guest-{number}")
        account.token_count += 1_000 - number
        tenants.leave(account)
    assert tenants.enter("guest-0").token_count == 1_000
    assert tenants.enter(f"guest-{IDLE_COUNT - 1}").token_count == 1_001 - IDLE_COUNT
    assert tenants.enter(f"guest-{IDLE_COUNT}").token_count == 0
