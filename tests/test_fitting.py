"""What the training is made of: networks, loop, optimiser, changes of pictures."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from experiments import augment, fitting, judge, mini_export, mini_generator, nets
from inverse_set.models import generator, mini, weights
from inverse_set.models.classifier import Classifier


def drawn(net):
    """`net` with statistics and slopes that normalise something."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nets.NORMS):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.1, 2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    assert np.std(theirs) > 1e-4
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def pictures(side=64):
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_a_classifier_is_the_same_in_jax():
    """Its folded weights, layer by layer; the ReLU after a pooling or before it."""
    plan = mini.classifier_plan(5, 4)
    net, x = drawn(nets.Classifier(plan, 64)), pictures()
    found = net.activations(x)
    outputs = Classifier(plan).apply(
        {"params": nets.folded(net)}, jnp.asarray(x.permute(0, 2, 3, 1).numpy())
    )
    assert {"pool1", "pool2", "relu4", "relu6", "fc8"} <= set(found)
    for name, values in found.items():
        close(outputs[name], values)


def test_smaller_pictures_give_fc6_as_many_values():
    from experiments.mini_classifier import LAST_POOLS, RESOLUTIONS

    net = nets.Classifier(mini.classifier_plan(5, 4), 64, 0.0, LAST_POOLS).eval()
    for side in (*RESOLUTIONS, 64, 32):
        found = net.activations(pictures(side))
        assert found["pool5"].shape[2:] == (4, 4) and found["fc8"].shape == (3, 5)


def natural_codes(count=3):
    return torch.randn(count, 128, generator=torch.Generator().manual_seed(1)).relu()


@pytest.mark.parametrize("residual", [False, True])
def test_a_generator_is_the_same_in_jax(residual):
    plan, codes = mini.generator_plan(4, residual), natural_codes()
    net = drawn(nets.Generator(plan, 128))
    images = generator.Generator(plan).apply({"params": nets.folded(net)}, codes.numpy())
    close(images, net(codes))


def test_a_doubling_leaves_flat_ground_flat():
    """Whatever its weights; and each output is a mean over the phases where these differ."""
    torch.manual_seed(0)
    layer = nets.Doubling(3, 5)
    torch.nn.init.normal_(layer.weight)
    with torch.no_grad():
        y = layer(torch.tensor([1.0, -2.0, 3.0])[None, :, None, None].expand(1, 3, 6, 6))
        inner = y[0, :, 1:-1, 1:-1]  # at the border there are fewer taps
        torch.testing.assert_close(inner, inner.mean((1, 2), keepdim=True).expand_as(inner))
        free = torch.nn.functional.conv_transpose2d(
            torch.ones(1, 3, 6, 6), layer.weight, stride=2, padding=1
        )[0, :, 1:-1, 1:-1]
        assert free.std((1, 2)).min() > 0.1
        torch.testing.assert_close(layer(torch.ones(1, 3, 6, 6))[0, :, 2, 2], free.mean((1, 2)))


def test_a_doubling_can_be_upsampling_and_a_convolution():
    """Of a kernel that is even already nothing is changed: a 3x3 one and a square of ones."""
    torch.manual_seed(0)
    small, x = torch.randn(5, 3, 3, 3), torch.randn(2, 3, 6, 6)
    layer = nets.Doubling(3, 5)
    wide = torch.nn.functional.conv2d(
        small.flatten(0, 1)[:, None], torch.ones(1, 1, 2, 2), padding=1
    )
    with torch.no_grad():
        layer.weight.copy_(wide.reshape(5, 3, 4, 4).flip(2, 3).transpose(0, 1))
        torch.testing.assert_close(layer.kernel(), layer.weight.data)
        upsampled = torch.nn.functional.interpolate(x, scale_factor=2)
        expected = torch.nn.functional.conv2d(upsampled, small, padding=1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_plain_generator_grows():
    """A file without the residual layers gives nearly its pictures, evened, and is trainable."""
    torch.manual_seed(0)
    codes = natural_codes(64)
    first = drawn(nets.Generator(mini.generator_plan(4), 128))
    first.layers["deconv0"].weight.data.mul_(60)
    net = nets.loaded(
        nets.Generator(mini.generator_plan(4, residual=True), 128), nets.folded(first)
    )
    net = nets.thawed(net, lambda: net(codes))
    with torch.no_grad():
        pictures = first(codes)
        assert pictures.std() > 0.05
        for mode in (net.eval(), net.train()):
            torch.testing.assert_close(mode(codes), pictures, rtol=0, atol=0.05)
    for layer in net.layers.values():
        if isinstance(layer, nets.Layer):
            kernel = layer.product.weight
            assert kernel.norm().item() == pytest.approx(len(kernel) ** 0.5, rel=1e-4)


def test_the_judge_is_the_same_in_jax():
    net, x = drawn(nets.Judge(5, (8, 16, 32), 2)), pictures()
    params = nets.folded(net)
    assert judge.network_of(params) == judge.Judge(5, (8, 16, 32), 2)
    outputs = judge.Judge(5, (8, 16, 32), 2).apply(
        {"params": params}, x.permute(0, 2, 3, 1).numpy()
    )
    close(outputs["fc8"], net(x))


def test_folded_weights_are_loaded_again():
    plan, x = mini.classifier_plan(5, 4), pictures()
    first = drawn(nets.Classifier(plan, 64))
    again = nets.loaded(nets.Classifier(plan, 64), nets.folded(first)).eval()
    torch.testing.assert_close(again(x), first(x), rtol=1e-4, atol=1e-5)


def test_centred_logits_say_the_same():
    net, x = drawn(nets.Classifier(mini.classifier_plan(5, 4), 64)), pictures()
    torch.nn.init.uniform_(net.layers["fc8"].bias, 3, 9)
    params = nets.centred(nets.folded(net))
    outputs = Classifier(mini.classifier_plan(5, 4)).apply(
        {"params": params}, x.permute(0, 2, 3, 1).numpy()
    )
    plain = net(x)
    assert plain.mean() > 2 and np.abs(outputs["fc8"].mean(-1)).max() < 1e-5
    close(outputs["fc8"], plain - plain.mean(1, keepdim=True))
    other = nets.folded(nets.Generator(mini.generator_plan(4), 128))
    assert nets.centred(other) is other


def test_folded_weights_are_trainable_again():
    """They compute the same, and normalise: statistics of a batch would be the stored ones."""
    plan, x = mini.classifier_plan(5, 4), torch.randn(64, 3, 64, 64)
    first = drawn(nets.Classifier(plan, 64))
    again = nets.loaded(nets.Classifier(plan, 64), nets.folded(first))
    again = nets.thawed(again, lambda: again(x))
    torch.testing.assert_close(again(x), first(x), rtol=1e-3, atol=1e-4)
    assert again.layers["conv3"].norm.running_var.std() > 0
    torch.testing.assert_close(again.train()(x), first(x), rtol=2e-2, atol=2e-2)


def test_slopes_of_normalisations_stay_positive():
    net = nets.Judge(3, (8, 8), 1)
    torch.nn.init.constant_(net.layers["stem"].norm.weight, -1.0)
    nets.positive(net)
    assert (net.layers["stem"].norm.weight > 0).all()


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_orthogonal_factors(shape):
    """Directions stay, lengths become nearly 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    found = u.T @ fitting.orthogonal(matrix).numpy() @ v.T
    assert ((np.diag(found) > 0.5) & (np.diag(found) < 1.3)).all()
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.15


def test_muon_descends_and_keeps_the_norm():
    target = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    p = torch.nn.Parameter(torch.randn(8, 12, generator=torch.Generator().manual_seed(1)))
    muon = fitting.Muon([p])

    def angle():
        return (p * target).sum().item() / (p.norm() * target.norm()).item()

    before = angle()
    for step in range(60):
        fitting.set_rate(muon, 0.1 * (1 - step / 60))
        muon.zero_grad()
        (-(p * target).sum() / p.norm()).backward()
        muon.step()
    assert before < 0.5 and angle() > 0.98
    assert abs(p.norm().item() - 8**0.5) < 0.5


def test_rates_rise_and_fall():
    rates = [fitting.ramp(step, 100, 0.2) for step in range(100)]
    assert np.argmax(rates) in (19, 20) and 0.95 < max(rates) <= 1
    assert (np.diff(rates[:19]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert 0 < rates[0] < 0.05 and 0 < rates[-1] < 0.02


def test_a_plateau_can_be_cut():
    rates = [fitting.plateau(step, 100, 10, 20) for step in range(100)]
    assert rates[0] == 0.1 and set(rates[9:80]) == {1.0} and rates[99] == 0.05
    assert [fitting.plateau(step, 60, 10, 20) for step in range(41)] == rates[:41]


def run(out, total, every=2, size=8, kill=None, seen=None):
    """A toy stage: a number that every drawn number and a random one are added to."""
    value = torch.zeros(())

    def update(step, chosen, draw):
        if step == kill:
            raise InterruptedError
        if seen is not None:
            seen.append(chosen.tolist())
        value.add_(chosen.sum() * (step + 1) + torch.rand((), generator=draw) + torch.rand(()))
        return {"loss": value.clone()}

    torch.manual_seed(0)
    out.mkdir(exist_ok=True)
    parts = {"value": fitting.Kept(value)}
    fitting.run("toy", out, parts, total, size, 4, 0, update, lambda step: {"valid": step}, every)
    return value.item()


def test_a_pass_draws_every_picture_once(tmp_path):
    seen = []
    run(tmp_path, 6, size=12, seen=seen)
    passes = np.reshape(seen, (2, 12))
    assert (np.sort(passes) == np.arange(12)).all() and (passes[0] != passes[1]).any()


@pytest.mark.parametrize("kill", [1, 3, 6])
def test_a_killed_stage_ends_the_same(tmp_path, kill):
    """Before the first checkpoint, between two, in the middle of a pass."""
    expected = run(tmp_path / "whole", 7)
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", 7, kill=kill)
    assert run(tmp_path / "cut", 7) == expected
    assert run(tmp_path / "cut", 7, kill=0) == expected  # done: no step more


def test_the_log_has_means_and_reports(tmp_path):
    run(tmp_path, 5)
    lines = (tmp_path / "toy.log").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["2", "4", "5"]
    assert ["valid" in line for line in lines] == [False, True, True]


def test_what_is_not_finite_ends_the_stage(tmp_path):
    def update(step, chosen, draw):
        return {"loss": torch.tensor(float("nan"))}

    with pytest.raises(SystemExit, match="not finite in the steps to 1"):
        fitting.run("toy", tmp_path, {}, 4, 8, 4, 0, update, None, 2)
    with pytest.raises(SystemExit, match="13 pictures is more than there are, 12"):
        fitting.run("toy", tmp_path, {}, 4, 12, 13, 0, update, None, 2)
    assert not list(tmp_path.glob("*.pt"))


def test_an_average_follows():
    net = torch.nn.BatchNorm1d(2)
    _, average = fitting.network(net)
    torch.nn.init.constant_(net.weight, 3.0)
    fitting.follow(average, net, 0)
    assert 2.5 < average.weight[0].item() < 3  # the first step counts
    for _ in range(50):
        fitting.follow(average, net, 10**6)
    assert 2.8 < average.weight[0].item() < 3


@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_augmented_pictures(resolution):
    """Flat ones stay flat; a gradient from left to right stays one, either way round."""
    draw = torch.Generator().manual_seed(0)
    images = torch.zeros(40, 64, 64, 3, dtype=torch.uint8)
    images[:] = (torch.arange(40) * 6)[:, None, None, None]
    seen = augment.augment(images, resolution, draw)
    assert seen.shape == (40, 3, resolution, resolution)
    assert seen.min() >= 0 and seen.max() <= 1
    assert seen.std((2, 3)).max() < 1e-5
    images[:] = (100 + torch.arange(64))[None, None, :, None]
    across = augment.augment(images, resolution, draw)[:, 0, resolution // 2].diff(dim=1)
    rises = (across > -1e-6).all(1)
    assert (rises | (across < 1e-6).all(1)).all() and 0.2 < rises.float().mean() < 0.8


def test_disturbed_pictures():
    """Flat ones get another colour, whole pixels are moved, the same ones each time."""
    draw = torch.Generator().manual_seed(0)
    disturbed = augment.Disturbance(20, draw, "cpu", shift=3)
    flat = disturbed(torch.full((20, 3, 16, 16), 0.5))
    assert flat.std((1, 2, 3)).max() < 1e-6
    assert flat.amin() < 0.45 and flat.amax() > 0.55 and (flat - 0.5).abs().max() < 0.151
    # A point on grey ground: at its distance from the middle, and grey all the same.
    x = torch.zeros(12, 3, 16, 16)
    x[:, :, 8, 8] = 1.0
    moved = disturbed(x)
    assert moved.shape == x.shape and torch.equal(moved, disturbed(x))
    for picture, (right, down) in zip(moved, disturbed.pixels.tolist(), strict=False):
        place = divmod(picture[0].argmax().item(), 16)
        assert place == (8 - down, 8 - right)
        assert (picture.flatten(1).sort(1).values[:, :-1].std(1) < 1e-5).all()
    assert disturbed.pixels.abs().max() == 3 and len(disturbed.pixels.unique(dim=0)) > 10


def test_a_small_change_of_colours():
    images = torch.full((40, 64, 64, 3), 128, dtype=torch.uint8)
    spread = [
        augment.augment(images, 64, torch.Generator().manual_seed(0), 0.75, colours).std()
        for colours in (1.0, 0.3, 0.0)
    ]
    assert 0.25 * spread[0] < spread[1] < 0.35 * spread[0] and spread[2] < 1e-6


def test_mixed_pictures_have_the_share_of_their_pixels():
    x = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16)
    draw, shares = torch.Generator().manual_seed(0), []
    for _ in range(20):
        mixed, other, share = augment.cutmix(x, torch.arange(8), draw)
        assert other.tolist() == [7, 0, 1, 2, 3, 4, 5, 6]
        expected = share * torch.arange(8.0) + (1 - share) * other
        torch.testing.assert_close(mixed.mean((1, 2, 3)), expected)
        shares.append(share)
    assert min(shares) < 0.3 and max(shares) > 0.7


def test_codes_without_pictures():
    """Mixtures lie between two codes; moved ones have a class's logit raised, within bounds."""
    net = nets.Classifier(mini.classifier_plan(5, 4), 64).eval()
    draw = torch.Generator().manual_seed(0)
    codes, upper = torch.rand(16, 128, generator=draw), torch.full((128,), 1.5)
    made = mini_generator.without_pictures(net, codes, 4, 6, upper, draw)
    assert made.shape == (10, 128) and made.min() >= 0 and made.max() <= 1.5
    low, high = torch.minimum(codes[:4], codes[4:8]), torch.maximum(codes[:4], codes[4:8])
    assert (made[:4] >= low - 1e-6).all() and (made[:4] <= high + 1e-6).all()
    change = mini_generator.head(net, made[4:]) - mini_generator.head(net, codes[-6:])
    assert (change.max(1).values > 0).all() and (made[4:] != codes[-6:]).any(1).all()


def test_the_pair_fits():
    """Every weight in fp16; natural activations and codes come on top."""
    shapes = [
        weights.shapes(Classifier(mini.classifier_plan(200)), (64, 64, 3)),
        weights.shapes(generator.Generator(mini.generator_plan(residual=True)), (1024,)),
    ]
    sizes = [
        2 * np.prod(shape) for net in shapes for leaves in net.values() for shape in leaves.values()
    ]
    assert 15 < sum(sizes) / 2**20 < mini_export.LIMIT - 1.5


def test_a_sheet_of_reconstructions(tmp_path):
    from PIL import Image

    pairs = np.zeros((48, 2, 8, 8, 3), np.uint8)
    pairs[:, 1] = 200
    mini_generator.sheet(pairs, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (12 * 8, 8 * 8, 3)
    assert (picture[:8] == 0).all() and (picture[8:16] == 200).all()
