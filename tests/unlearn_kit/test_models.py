import ast
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unlearn_kit import models
from unlearn_kit.modules import batch_norms, frozen_copy

# name, num_classes, channels, options, image size, expected output shape without the batch, head
NETWORKS = [
    ("small-cnn", 10, 1, {}, 28, (10,), "head"),
    ("small-cnn", 4, 3, {"width": 4}, 8, (4,), "head"),
    ("all-cnn", 3, 1, {"width": 4}, 12, (3,), "head"),
    ("all-cnn", 3, 3, {"width": 4, "batch_norm": False, "dropout": 0.5}, 9, (3,), "head"),
    ("resnet18", 5, 1, {}, 8, (5,), "network.fc"),
    ("mlp", 10, 1, {}, 8, (10,), "head"),
    ("mlp", 2, None, {"input_shape": (3, 6, 6), "hidden": ()}, 6, (2,), "head"),
    ("unet", 2, 3, {}, 48, (1, 48, 48), "segmentation_head"),
    ("unet", 4, 1, {"widths": (4, 8), "decoder_widths": (8, 4)}, 18, (4, 18, 18), "segmentation_head"),
]


@pytest.fixture(params=NETWORKS, ids=lambda row: f"{row[0]}-{row[4]}-{row[1]}")
def built(request):
    name, classes, channels, options, size, shape, head = request.param
    network = models.build(name, classes, channels, seed=0, **options)
    x = torch.rand(3, channels or 3, size, size, generator=torch.Generator().manual_seed(1))
    return network, x, shape, head


def count(network):
    return sum(p.numel() for p in network.parameters())


# --- every network ---


def test_networks_map_pixels_to_finite_logits_of_the_promised_shape(built):
    network, x, shape, _ = built
    logits = network.eval()(x)
    assert logits.shape == (3, *shape)
    assert torch.isfinite(logits).all()


def test_a_gradient_reaches_the_pixels_and_every_parameter(built):
    network, x, _, _ = built
    x.requires_grad_()
    out = network(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_declared_head_is_the_last_module_with_parameters(built):
    network, _, _, head = built
    assert models.head_name(network) == head
    assert models.head_parameters(network) == [n for n, _ in network.named_parameters()][-2:]


def test_normalisation_comes_before_all_other_computation(built):
    network, x, _, _ = built
    order = []
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    network.eval()(x)
    assert order[0] == "normalize"
    assert isinstance(network.normalize, models.Normalize)


def test_normalising_in_the_network_equals_normalising_its_input(built):
    network, x, _, _ = built
    network.eval()
    mean, std = torch.full((x.shape[1],), 0.25), torch.full((x.shape[1],), 0.125)
    plain = network(x.double().sub(0.25).div(0.125).mul(0.5).add(0.5).float())  # undoes the default (x - .5) / .5
    network.normalize.mean.copy_(mean)
    network.normalize.std.copy_(std)
    torch.testing.assert_close(network(x), plain, rtol=1e-4, atol=1e-5)


def test_fresh_copies_depend_on_the_seed_and_not_on_the_old_weights(built):
    network, x, _, _ = built
    initial = {k: v.clone() for k, v in network.state_dict().items()}
    network(x)  # moves the running statistics
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.rand_like(p) + 0.5)
    moved = {k: v.clone() for k, v in network.state_dict().items()}
    fresh = models.fresh_copy(network, seed=7).state_dict()
    other = models.fresh_copy(network, seed=8)
    again = models.fresh_copy(other, seed=7).state_dict()
    for key, value in fresh.items():
        assert torch.equal(value, again[key]), key
        assert torch.equal(network.state_dict()[key], moved[key]), key
        if key.startswith("normalize."):
            assert torch.equal(value, initial[key]), key
            continue
        assert not torch.equal(value, moved[key]), key
        if value.dim() > 1:
            assert not torch.equal(value, initial[key]), key
            assert not torch.equal(value, other.state_dict()[key]), key
    assert models.head_name(other) == models.head_name(network)


def test_batch_norm_starts_again_at_the_identity():
    network = models.small_cnn(3, 1, 4)
    network(torch.rand(4, 1, 8, 8))
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(2)
    for layer in batch_norms(models.fresh_copy(network, seed=0)):
        assert layer.num_batches_tracked == 0
        for tensor, value in (
            (layer.weight, 1),
            (layer.bias, 0),
            (layer.running_mean, 0),
            (layer.running_var, 1),
        ):
            assert (tensor == value).all()


# --- the single networks ---


def test_parameter_counts():
    # Convolutions 144 + 2304 + 4608 + 9216 + 18432, batch norm 2 * (16 + 16 + 32 + 32 + 64), head 650.
    assert count(models.small_cnn()) == 35_674
    assert count(models.resnet(18)) == 11_173_962  # the CIFAR ResNet-18 of the literature: 11.17 million
    assert count(models.mlp(10, hidden=(5, 7))) == 64 * 5 + 5 + 5 * 7 + 7 + 7 * 10 + 10
    assert 270_000 <= count(models.unet()) <= 500_000
    # All-CNN-C in the paper: about 1.3 million; without batch norm, biases and 10 classes:
    shapes = [(3, 96, 9), (96, 96, 9), (96, 96, 9), (96, 192, 9), (192, 192, 9), (192, 192, 9), (192, 192, 9)]
    shapes += [(192, 192, 1), (192, 10, 1)]
    assert count(models.all_cnn(batch_norm=False)) == sum(i * o * k + o for i, o, k in shapes)


def test_all_cnn_head_equals_a_1x1_convolution_averaged_over_the_image():
    network = models.all_cnn(4, 1, 4, batch_norm=False).eval()
    x = torch.rand(2, 1, 16, 16)
    features = x
    for name, module in network.named_children():
        if name == "pool":
            break
        features = module(features)
    by_convolution = nn.functional.conv2d(features, network.head.weight[:, :, None, None], network.head.bias)
    torch.testing.assert_close(network(x), by_convolution.mean(dim=(2, 3)))


def test_all_cnn_dropout_follows_the_paper():
    rates = [m.p for m in models.all_cnn(width=4, dropout=0.5).modules() if isinstance(m, nn.Dropout)]
    assert rates == pytest.approx([0.2, 0.5, 0.5])
    assert not any(isinstance(m, nn.Dropout) for m in models.all_cnn(width=4).modules())


@pytest.mark.parametrize(("small", "size"), [(True, 4), (False, 1)])
def test_resnet_stems_differ_in_resolution(small, size):
    network = models.resnet(18, 2, 3, small_images=small).eval()
    seen = []
    network.network.layer4.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[2:])))
    network(torch.rand(1, 3, 32, 32))
    assert seen == [(size, size)]


def test_mlp_takes_plain_vectors():
    network = models.mlp(3, input_shape=(5,), hidden=(4,))
    assert network(torch.rand(2, 5)).shape == (2, 3)


@pytest.mark.parametrize(("classes", "logits"), [(2, 1), (3, 3)])
def test_unets_on_a_named_encoder_keep_the_names_adapters_address(classes, logits):
    network = models.unet(classes, 1, encoder="resnet18", decoder_widths=(8, 8, 8, 4, 4)).eval()
    assert (
        [name for name, _ in network.named_children()]
        == [name for name, _ in SMALL_UNET.named_children()]
        == ["normalize", "encoder", "decoder", "segmentation_head"]
    )
    x = torch.rand(1, 1, 32, 32)
    logits_of_x = network(x)
    assert logits_of_x.shape == (1, logits, 32, 32)
    logits_of_x.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert models.head_parameters(network) == ["segmentation_head.0.weight", "segmentation_head.0.bias"]
    fresh = models.fresh_copy(network, seed=0).eval()
    assert not torch.equal(fresh(x), logits_of_x)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(5, 40), width=st.integers(5, 40))
def test_small_unet_returns_the_size_it_was_given(height, width):
    network = SMALL_UNET.eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, height, width)).shape == (1, 1, height, width)


SMALL_UNET = models.unet(2, 1, widths=(4, 4, 4), decoder_widths=(4, 4, 4))


def test_small_unet_learns_a_mask():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 16, 16)
    mask = torch.zeros(4, 1, 16, 16)
    mask[:, :, 4:12, 4:12] = 1
    x = 0.5 * x + 0.5 * mask
    network = models.unet(2, 1, widths=(8, 8), decoder_widths=(8, 8))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), mask).backward()
        optimizer.step()
    wrong = ((network.eval()(x) > 0) != (mask > 0)).float().mean()
    assert wrong < 0.05


def test_copies_of_a_network_survive_pickling_between_processes():
    network = models.unet(2, 1, widths=(4,), decoder_widths=(4,)).eval()
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: models.small_cnn(0), "expected num_classes to be at least 1, but got 0"),
        (lambda: models.small_cnn(width=1.5), "expected width to be an int, but got float"),
        (
            lambda: models.small_cnn(channels=3, mean=(0.1, 0.2)),
            "expected mean to have 1 or 3 numbers, but got 2",
        ),
        (lambda: models.all_cnn(dropout=1.0), r"expected dropout in \[0, 1\), but got 1.0"),
        (lambda: models.resnet(19), r"expected depth to be one of \['18', '34', '50'\], but got '19'"),
        (lambda: models.mlp(input_shape=(8, 8)), r"expected input_shape to be \(C, H, W\) or \(features,\)"),
        (lambda: models.mlp(10, 3, input_shape=(1, 8, 8)), "expected input_shape to begin with channels=3"),
        (lambda: models.mlp(10, 3, input_shape=(3,)), "expected input_shape to begin with channels=3"),
        (lambda: models.unet(1), "expected num_classes to be at least 2, but got 1"),
        (
            lambda: models.unet(encoder="resnet500"),
            r"expected encoder to be one of .* did you mean 'resnet50'",
        ),
        (lambda: models.unet(encoder="resnet34", widths=(4,)), "expected widths for encoder='small' only"),
        (lambda: models.unet(widths=(4, 4)), "expected decoder_widths to have one number a stage"),
        (lambda: models.unet(widths=4), "expected widths to be a sequence, but got int"),
        (lambda: models.unet(encoder="resnet18", decoder_widths=(4, 4)), "to have 3, 4 or 5 numbers"),
    ],
)
def test_builders_refuse_bad_arguments(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()


# --- by name ---


def test_build_agrees_with_the_builder():
    torch.manual_seed(3)
    direct = models.small_cnn(4, 3, width=4, mean=0.2, std=0.3)
    torch.manual_seed(3)
    named = models.build("small-cnn", 4, 3, width=4, mean=0.2, std=0.3)
    assert all(
        torch.equal(a, b) for a, b in zip(direct.state_dict().values(), named.state_dict().values(), strict=True)
    )


def test_build_by_seed_repeats_itself_and_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    a, b = (models.build("mlp", 3, seed=5).head.weight for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(a, b)
    assert not torch.equal(a, models.build("mlp", 3, seed=6).head.weight)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: models.build("small_cnn", 10), "expected name to be one of .* did you mean 'small-cnn'"),
        (
            lambda: models.build("small-cnn", 10, widht=4),
            "option of 'small-cnn' .* got 'widht'; did you mean 'width'",
        ),
        (
            lambda: models.build("resnet18", 10, depth=34),
            "option of 'resnet18' to be one of .* but got 'depth'",
        ),
        (lambda: models.build("mlp", 10, 0), "expected channels to be at least 1, but got 0"),
    ],
)
def test_build_refuses_unknown_names_and_options(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_the_table_says_what_each_network_takes():
    assert list(models.MODELS) == ["small-cnn", "all-cnn", "resnet18", "resnet34", "resnet50", "mlp", "unet"]
    assert models.MODELS["small-cnn"].options == ["width", "mean", "std"]
    assert models.MODELS["resnet50"].options == ["small_images", "mean", "std"]
    assert {row.task for row in models.MODELS.values()} == {"classification", "segmentation"}


def test_heavy_packages_wait_until_they_are_needed():
    for file in Path(models.__file__).parent.glob("*.py"):
        top = [node for node in ast.parse(file.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        imported = {getattr(node, "module", None) or node.names[0].name for node in top}
        assert not {name.split(".")[0] for name in imported} & {"torchvision", "segmentation_models_pytorch"}


# --- normalisation ---


@settings(max_examples=30, deadline=None)
@given(
    stats=st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 3)), min_size=1, max_size=4),
    batch=st.integers(1, 3),
)
def test_normalize_agrees_with_numpy(stats, batch):
    mean, std = zip(*stats, strict=True)
    x = np.random.default_rng(0).random((batch, len(mean), 3, 2), dtype=np.float32)
    ours = models.Normalize(mean, std)(torch.from_numpy(x)).numpy()
    theirs = np.stack([(x[:, c] - mean[c]) / std[c] for c in range(len(mean))], axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_with_normalization_feeds_the_model_normalised_pixels_and_keeps_its_head():
    inner = models.declare_head(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 4)), "2").double().eval()
    wrapped = models.with_normalization(inner, (0.1, 0.2, 0.3), [0.5, 0.6, 0.7])
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(wrapped(x), inner(by_hand))
    assert models.head_name(wrapped) == "network.2"
    assert models.head_parameters(wrapped) == ["network.2.weight", "network.2.bias"]
    assert not wrapped.training
    assert wrapped.network is inner
    assert wrapped(x).dtype == torch.float64
    assert models.head_name(frozen_copy(wrapped)) == "network.2"


def test_with_normalization_takes_tensors_and_single_numbers():
    inner = nn.Flatten()
    x = torch.rand(1, 3, 2, 2)
    by_tensor = models.with_normalization(inner, torch.tensor([0.5] * 3), np.array([0.25] * 3))(x)
    torch.testing.assert_close(models.with_normalization(inner, 0.5, 0.25)(x), by_tensor)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (
            (0.1, 0.2),
            (1, 1, 1),
            "expected mean and std to have one number a channel each, but got 2 and 3 numbers",
        ),
        ((0.5,), (0,), r"expected std in \(0, inf\), but got 0"),
        (0.5, -1.0, r"expected std in \(0, inf\), but got -1.0"),
        (0.5, float("nan"), "expected std in .* but got nan"),
        (123.7, 58.4, r"expected mean in \[0, 1\], but got 123.7"),
        ((), (), "expected mean to have at least one number"),
        ("0.5", 1.0, "expected mean to be a number or a sequence, but got str"),
        (("a",), (1.0,), r"expected mean\[0\] to be a number, but got str"),
    ],
)
def test_with_normalization_refuses_bad_statistics(mean, std, text):
    with pytest.raises((ValueError, TypeError), match=text):
        models.with_normalization(nn.Flatten(), mean, std)


def test_with_normalization_refuses_what_is_no_model_or_normalises_already():
    with pytest.raises(TypeError, match=r"expected model to be a torch.nn.Module, but got int"):
        models.with_normalization(3, 0.5, 0.5)
    with pytest.raises(ValueError, match="but got one that normalises in 'normalize'"):
        models.with_normalization(models.mlp(), 0.5, 0.5)


def test_images_with_another_number_of_channels_are_refused():
    # A single-channel image would otherwise broadcast to three channels without a word.
    with pytest.raises(ValueError, match=r"expected x to be images \(B, 3, H, W\), but got shape \(2, 1, 8, 8\)"):
        models.small_cnn(channels=3)(torch.rand(2, 1, 8, 8))


# --- fresh weights ---


class Gain(nn.Module):
    """Owns a parameter, cannot reset it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.gain


class HalfReset(Gain):
    """Resets one of its two parameters."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))

    def reset_parameters(self):
        nn.init.ones_(self.gain)


def test_fresh_copy_names_the_modules_that_cannot_be_reset():
    model = nn.Sequential(nn.Linear(2, 2), Gain(), nn.Sequential(Gain()))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"modules that do not: 1 \(Gain\), 2.0 \(Gain\); where there is an"):
        models.fresh_copy(model, seed=0)
    with pytest.raises(ValueError, match=r"the model itself \(Gain\)"):
        models.fresh_copy(Gain(), seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_fresh_copy_names_a_module_that_resets_only_some_of_its_parameters():
    with pytest.raises(ValueError, match=r"modules that do not: 0 \(HalfReset\)"):
        models.fresh_copy(nn.Sequential(HalfReset()), seed=0)


def test_reinitialize_leaves_the_module_alone_when_it_refuses():
    model = nn.Sequential(nn.Linear(2, 2), HalfReset())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="HalfReset"):
        models.reinitialize_(model, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_reinitialize_changes_one_submodule_in_place():
    network = models.mlp(3, hidden=(4, 4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    parameters = list(network.parameters())
    assert models.reinitialize_(network.block2, seed=1) is network.block2
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"block2.0.weight", "block2.0.bias"}
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))


def test_fresh_copy_equals_a_network_built_with_the_same_draws():
    # Children are reset last to first: a single layer draws as its constructor does.
    trained = nn.Linear(5, 3)
    torch.manual_seed(11)
    built_anew = nn.Linear(5, 3)
    assert torch.equal(models.fresh_copy(trained, seed=11).weight, built_anew.weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MultiheadAttention(4, 2),
        nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=3),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.BatchNorm1d(3, affine=False),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        nn.GroupNorm(1, 4),
        nn.LSTM(3, 4),
        nn.Embedding(5, 3, padding_idx=1),
        nn.PReLU(),
        nn.Bilinear(2, 3, 4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_torch_come_back_as_their_constructor_leaves_them(layer):
    fresh_from_constructor = {k: v.clone() for k, v in layer.state_dict().items()}
    for tensor in layer.state_dict().values():
        tensor.fill_(9)
    fresh = models.fresh_copy(layer, seed=0).state_dict()
    for key, original in fresh_from_constructor.items():
        assert not (fresh[key] == 9).any(), key
        assert torch.isfinite(fresh[key]).all(), key
        if bool((original == original.flatten()[0]).all()):
            assert torch.equal(fresh[key], original), key


def test_fresh_copy_keeps_modes_flags_and_constants_and_drops_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("scale", torch.tensor([3.0]))
    model[0].weight.requires_grad_(False)
    model(torch.rand(4, 2)).sum().backward()
    model[1].eval()
    fresh = models.fresh_copy(model, seed=0)
    assert fresh.training
    assert not fresh[1].training
    assert not fresh[0].weight.requires_grad
    assert fresh[0].bias.requires_grad
    assert fresh.scale.item() == 3.0
    assert all(p.grad is None for p in fresh.parameters())
    assert model[0].bias.grad is not None


def test_fresh_copy_keeps_tied_weights_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    fresh = models.fresh_copy(model, seed=0)
    assert fresh[0].weight is fresh[1].weight


def test_fresh_copy_leaves_the_callers_random_states_alone():
    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    def seed():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002

    model = nn.Linear(2, 2)
    seed()
    expected = draw()
    seed()
    models.fresh_copy(model, seed=5)
    assert draw() == expected


def test_fresh_copy_refuses_what_is_no_model():
    with pytest.raises(TypeError, match=r"expected model to be a torch.nn.Module, but got dict"):
        models.fresh_copy({}, seed=0)


# --- heads ---


def test_a_head_is_found_through_wrappers_and_copies():
    network = models.mlp(3)
    wrapped = nn.Sequential(nn.Identity(), nn.Sequential(network))
    assert models.head_name(wrapped) == "1.0.head"
    assert models.head_parameters(frozen_copy(wrapped)) == ["1.0.head.weight", "1.0.head.bias"]


def test_head_errors_name_what_to_do():
    with pytest.raises(
        ValueError, match=r"expected head to be a submodule of Sequential, one of \['0'\], but got 'fc'"
    ):
        models.declare_head(nn.Sequential(nn.Linear(2, 2)), "fc")
    with pytest.raises(ValueError, match=r"call unlearn_kit.models.declare_head\(model, 'name'\) once"):
        models.head_name(nn.Linear(2, 2))
