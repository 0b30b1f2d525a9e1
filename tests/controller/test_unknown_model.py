"""An engine serves, and its next model is not known, or never will be: said as it is, while the old one goes on."""

from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.conditions import ConditionStatus

_FORBIDDEN = [{"uri": "s3://p/a.so", "sha256": "0" * 64}]


def test_what_serves_is_not_what_is_wanted_until_the_model_is_known() -> None:
    world = EngineWorld()
    world.serve()
    assert world.condition("Ready").status is ConditionStatus.TRUE

    world.change_spec(model={"uri": "s3://models/next.onnx"})
    world.step()

    assert world.condition("Ready").status is ConditionStatus.TRUE
    behind = world.condition("UpToDate")
    assert (behind.status, behind.reason) == (ConditionStatus.FALSE, "BuildingNext")


def test_a_target_whose_next_engine_is_forbidden_says_why_and_serves_on() -> None:
    world = EngineWorld(settings={"store": {"default": {"s3": {"bucket": "b"}}}, "allowedPlugins": []})
    world.serve()

    world.change_spec(build={"plugins": _FORBIDDEN})
    world.settle()

    target = world.target("l4")
    assert target.ready_replicas == 1
    assert target.reason == "PluginNotAllowed"
    assert target.message.startswith("the previous engine still serves; spec.build.plugins[0]")
    for kind in ("UpToDate", "Prepared"):
        condition = world.condition(kind)
        assert (condition.status, condition.reason) == (ConditionStatus.FALSE, "PluginNotAllowed")
    assert world.condition("Serving").status is ConditionStatus.TRUE
