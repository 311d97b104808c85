"""What is asked of an environment is checked at creation, told to the engines, and shown without secrets."""

from __future__ import annotations

import pytest

from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import VirtualEnv
from tests.support.plane import Plane, refused, wanted
from tests.support.scripted_agent import ScriptedAgent

AT = "deployment.virtual_env"
SECRET = "https://me:s3cret@host/simple"

GOOD: dict[str, VirtualEnv] = {
    "nothing": VirtualEnv(),
    "a version": VirtualEnv(packages=["transformers==5.16.1"]),
    "ranges, extras and markers": VirtualEnv(packages=['peft[test]>=0.15,<1; python_version >= "3.11"']),
    "constraints": VirtualEnv(packages=["a"], constraints=["b<2", "c!=1.0"]),
    "an index with a port": VirtualEnv(packages=["a"], index_url="http://10.0.0.1:8080/simple"),
    "an index with a password": VirtualEnv(packages=["a"], index_url=SECRET),
    "links": VirtualEnv(packages=["a"], find_links=["/wheels", "https://host/wheels.html"], inherit=False),
}
BAD: dict[str, tuple[VirtualEnv, str, str]] = {
    "no requirement": (VirtualEnv(packages=["a", "==1"]), "packages[1]", "is no requirement"),
    "an empty one": (VirtualEnv(packages=[" "]), "packages[0]", "is empty: leave it out"),
    "an option": (VirtualEnv(packages=["--index-url=http://x"]), "packages[0]", "is an option: use the fields"),
    "a file of requirements": (VirtualEnv(packages=["-r /etc/passwd"]), "packages[0]", "is an option"),
    "an editable": (VirtualEnv(packages=[" -e ."]), "packages[0]", "is an option"),
    "a URL": (VirtualEnv(packages=["https://host/a.whl"]), "packages[0]", "names a URL: name the package"),
    "a direct reference": (VirtualEnv(packages=["a @ https://me:s3cret@host/a.whl"]), "packages[0]", "names a URL"),
    "a repository": (VirtualEnv(packages=["git+ssh://git@host/a"]), "packages[0]", "names a URL"),
    "a path": (VirtualEnv(packages=["/wheels/a"]), "packages[0]", "is a path: name the package, and its directory"),
    "a wheel": (VirtualEnv(packages=["a-1-py3-none-any.whl"]), "packages[0]", "is a path"),
    "two in one": (VirtualEnv(packages=["a\n--index-url=http://x"]), "packages[0]", "holds a line break"),
    "the engine": (VirtualEnv(packages=["Roundhouse_Serve[torch]"]), "packages[0]", "would replace the engine"),
    "too long": (VirtualEnv(packages=["a" * 513]), "packages[0]", "has 513 characters: use at most 512"),
    "too many": (VirtualEnv(packages=["a"] * 65), "packages", "65 are too many: use at most 64"),
    "a constraint with extras": (VirtualEnv(constraints=["a[b]<2"]), "constraints[0]", "has extras"),
    "a constraint that is an option": (VirtualEnv(constraints=["-c x"]), "constraints[0]", "is an option"),
    "too many constraints": (VirtualEnv(constraints=["a"] * 257), "constraints", "use at most 256"),
    "an index of files": (VirtualEnv(index_url="file:///wheels"), "index_url", "begins with http:// or https://"),
    "an index without a host": (VirtualEnv(index_url="https:///simple"), "index_url", "is no address"),
    "an index at no port": (VirtualEnv(index_url="https://host:x/"), "index_url", "is no address"),
    "an index of two lines": (VirtualEnv(index_url="https://host/\nx"), "index_url", "holds a line break"),
    "an index that was read back": (VirtualEnv(index_url="https://***@host/simple"), "index_url", "was read back"),
    "a relative path": (VirtualEnv(find_links=["wheels"]), "find_links[0]", "is no absolute path"),
    "a link with a password": (VirtualEnv(find_links=[SECRET]), "find_links[0]", "which only index_url may"),
    "a link of another kind": (VirtualEnv(find_links=["ftp://host/x"]), "find_links[0]", "is no address"),
    "a comma": (VirtualEnv(find_links=["/a,/b"]), "find_links[0]", "holds a comma"),
    "too many links": (VirtualEnv(find_links=["/a"] * 17), "find_links", "use at most 16"),
    "too much in all": (VirtualEnv(constraints=["a" * 500] * 40), "", "use at most 16384 in all"),
}


@pytest.mark.parametrize("asked", GOOD.values(), ids=GOOD)
async def test_an_environment_is_told_to_engines_as_it_was_asked_for(plane: Plane, asked: VirtualEnv) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        await plane.create(virtual_env=asked)
        told = await agent.assigned(lambda each: len(each.engines) == 1)
        assert told.engines[0].spec.HasField("virtual_env")
        assert told.engines[0].spec.virtual_env == asked


@pytest.mark.parametrize(("asked", "field", "message"), BAD.values(), ids=BAD)
async def test_what_cannot_be_an_environment_is_refused_by_name_with_the_cure(
    plane: Plane, asked: VirtualEnv, field: str, message: str
) -> None:
    create = pb.CreateDeploymentRequest(deployment=wanted(virtual_env=asked), allow_pending=True)
    error = await refused(plane.deployments.CreateDeployment(create))
    assert isinstance(error, InvalidArgument)
    [violation] = error.fields
    assert violation.field == f"{AT}.{field}".rstrip(".")
    assert message in violation.description
    assert "s3cret" not in error.message


async def test_the_password_of_an_index_is_shown_to_nobody(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        created = await plane.create(virtual_env=VirtualEnv(packages=["a"], index_url=SECRET))
        listed = await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())
        for shown in (created, *listed.deployments):
            assert shown.virtual_env.index_url == "https://***@host/simple"
        told = await agent.assigned(lambda each: len(each.engines) == 1)
        assert told.engines[0].spec.virtual_env.index_url == SECRET


async def test_a_deployment_without_an_environment_of_its_own_has_none(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        assert not (await plane.create()).HasField("virtual_env")
        told = await agent.assigned(lambda each: len(each.engines) == 1)
        assert not told.engines[0].spec.HasField("virtual_env")
