import pytest
import torch
from torch import nn

from m2ib_lite.hooks import capture, frozen, replace

X = torch.tensor([[1.0, -2.0, 0.5]])


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_capture_gives_the_output_of_each_call(net):
    with capture(net[0]) as outputs:
        net(X)
        net(2 * X)
    assert torch.equal(outputs[0], net[0](X))
    assert len(outputs) == 2


def test_replace_changes_what_follows(net):
    with replace(net[1], torch.zeros_like):
        assert torch.equal(net(X), net[2].bias[None])


@pytest.mark.parametrize("context", [capture, lambda module: replace(module, torch.zeros_like)])
def test_hooks_are_gone_after_success_and_after_any_exception(net, context):
    before = net(X)
    with context(net[1]):
        net(X)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), context(net[1]):
            raise error
    assert torch.equal(net(X), before)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_hook_that_never_fired_is_an_error(net):
    with pytest.raises(RuntimeError, match="Linear never fired"), capture(net[0]):
        pass


def test_frozen_brings_every_flag_back_one_by_one(net):
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), frozen(net):
            assert not any(module.training for module in net.modules())
            assert not any(weight.requires_grad for weight in net.parameters())
            raise error
        assert [module.training for module in net.modules()] == [True, True, False, True]
        assert [weight.requires_grad for weight in net.parameters()] == [False, True, True, True]
