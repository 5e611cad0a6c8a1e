import copy
import json
import pickle
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from unlearn_kit import adapters, checkpoints, models
from unlearn_kit.checkpoints import load_model, load_tensors_file, save_model, save_tensors
from unlearn_kit.errors import CheckpointError


def bits(tensor):
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(bits(a[k]) == bits(b[k]) for k in a)


@pytest.fixture
def trained():
    network = models.build("small-cnn", 3, 1, width=2, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(torch.rand(4, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    return network


# --- models ---


def test_a_model_comes_back_bit_for_bit_with_its_batch_norm(trained, tmp_path):
    path = save_model(trained, tmp_path / "a.safetensors")
    architecture = models.build("small-cnn", 3, 1, width=2, seed=1)
    untouched = copy.deepcopy(architecture)
    loaded = load_model(architecture, path)
    assert same_state(loaded, trained)
    assert loaded.block1[1].num_batches_tracked == 1
    assert loaded is not architecture
    assert same_state(architecture, untouched)
    assert models.head_name(loaded) == "head"
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.eval()(x), trained.eval()(x))


def test_loading_shares_no_memory_and_keeps_modes_and_flags(trained, tmp_path):
    path = save_model(trained, tmp_path / "a.safetensors")
    trained.eval()
    trained.head.weight.requires_grad_(False)
    loaded = load_model(trained, str(path))
    assert not loaded.training
    assert not loaded.head.weight.requires_grad
    own = {t.data_ptr() for t in trained.state_dict().values()}
    assert not own & {t.data_ptr() for t in loaded.state_dict().values()}


def test_a_unet_and_its_normalisation_come_back(tmp_path):
    network = models.unet(2, 1, widths=(4,), decoder_widths=(4,), mean=0.3, std=0.2)
    path = save_model(network, tmp_path / "u.safetensors")
    other = models.unet(2, 1, widths=(4,), decoder_widths=(4,))
    assert same_state(load_model(other, path), network)


def tied(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def test_tied_weights_come_back_tied(tmp_path):
    network = tied(0)
    loaded = load_model(tied(1), save_model(network, tmp_path / "t.safetensors"))
    assert loaded[0].weight is loaded[2].weight
    assert same_state(loaded, network)


def test_a_file_with_two_values_for_one_tied_weight_is_refused(tmp_path):
    torch.manual_seed(2)
    untied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    path = save_model(untied, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match=r"tied in the model differ in the file: \['0.weight'\]"):
        load_model(tied(0), path)


def test_channels_last_weights_come_back(tmp_path):
    network = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    loaded = load_model(nn.Conv2d(4, 4, 3), save_model(network, tmp_path / "c.safetensors"))
    assert torch.equal(loaded.weight, network.weight)


def test_the_header_says_what_wrote_it(trained, tmp_path):
    path = save_model(trained, tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["format_version"] == "1"
    assert header["class"] == "torch.nn.modules.container.Sequential"
    assert header["unlearn_kit_version"]


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    path = save_model(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), tmp_path / "a.safetensors")
    other = nn.Sequential(nn.Linear(4, 3), nn.Identity(), nn.Linear(1, 1, bias=False)).double()
    with pytest.raises(CheckpointError) as caught:
        load_model(other, path)
    text = str(caught.value)
    assert repr(str(path)) in text
    assert "missing '2.weight'" in text
    assert "unexpected '1.running_mean'" in text
    assert "'0.weight' is float32 (3, 2) in the file and float64 (3, 4) in the model" in text
    assert "'0.bias' is float32 (3,) in the file and float64 (3,) in the model" in text


def part_compiled(network):
    network = copy.deepcopy(network)
    network.block1 = torch.compile(network.block1)
    return network


def part_parallel(network):
    network = copy.deepcopy(network)
    network.block1 = nn.DataParallel(network.block1)
    return network


WRAPPED = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "parallel and compiled": lambda network: nn.DataParallel(torch.compile(network)),
    "compiled and parallel": lambda network: torch.compile(nn.DataParallel(network)),
    "a compiled part": part_compiled,
    "a parallel part": part_parallel,
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_names_that_wrappers_give_do_not_count(wrap, trained, tmp_path):
    other = models.build("small-cnn", 3, 1, width=2, seed=1)
    path = save_model(wrap(trained), tmp_path / "a.safetensors")
    assert same_state(load_model(other, path), trained)
    path = save_model(trained, tmp_path / "b.safetensors")
    loaded = load_model(wrap(other), path).state_dict()
    assert [bits(value) for value in loaded.values()] == [bits(value) for value in trained.state_dict().values()]


def test_a_wrapped_model_of_another_architecture_is_told_by_its_plain_names(tmp_path):
    path = save_model(nn.DataParallel(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(nn.Sequential(nn.Linear(4, 3)), path)
    assert str(caught.value) == (
        f"{str(path)!r} does not fit this Sequential, also without 'module.' in the names of the file: '0.weight' is "
        "float32 (3, 2) in the file and float32 (3, 4) in the model; unexpected '1.bias'; unexpected '1.weight'"
    )


def test_a_module_whose_part_is_called_module_keeps_its_names(tmp_path):
    """``module.0`` and ``0`` are two tensors where a model has both."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"module": nn.Linear(2, 2)}))
    network.add_module("module", nn.Sequential(nn.Linear(2, 2)))
    path = save_model(network, tmp_path / "a.safetensors")
    assert same_state(load_model(copy.deepcopy(network), path), network)
    with pytest.raises(CheckpointError, match=r"unexpected 'module.0.bias'"):
        load_model(nn.Sequential(nn.Linear(2, 2)), path)


def test_adapters_and_runs_are_no_models(trained, tmp_path):
    adapted = adapters.attach(trained, "head", rank=1)
    with pytest.raises(CheckpointError, match=r"a.safetensors' to hold the weights of a model, but it holds adapters"):
        load_model(trained, adapters.save(adapted, tmp_path / "a.safetensors"))
    peft = {"base_model.model.head.lora_A.weight": torch.ones(1, 4)}
    with pytest.raises(CheckpointError, match="but it holds adapters"):
        load_model(trained, save_tensors(peft, tmp_path / "p.safetensors"))
    path = save_tensors({"model/w": torch.ones(1)}, tmp_path / "r.safetensors", {"run": "{}"})
    with pytest.raises(CheckpointError, match="but it holds a run to resume: give it to the call that wrote it"):
        load_model(trained, path)


@pytest.mark.parametrize("call", [lambda p: save_model({}, p), lambda p: load_model({}, p)])
def test_what_is_no_model_is_refused(call, tmp_path):
    with pytest.raises(TypeError, match=r"expected model to be a torch.nn.Module, but got dict"):
        call(tmp_path / "a.safetensors")


# --- tensors ---

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=5),
    metadata=st.dictionaries(st.text(max_size=6).filter(lambda k: "version" not in k), st.text(max_size=6), max_size=3),
)
def test_tensors_of_every_kind_and_metadata_come_back(shapes, metadata, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "h.safetensors"
    tensors = {f"t{i}": (torch.rand(shape) * 3).to(dtype) for i, (dtype, shape) in enumerate(shapes)}
    save_tensors(tensors, path, metadata)
    back, header = load_tensors_file(path)
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert metadata.items() <= header.items()


def test_nan_infinity_and_negative_zero_keep_their_bits(tmp_path):
    tensor = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    back, _ = load_tensors_file(save_tensors({"t": tensor}, tmp_path / "n.safetensors"))
    assert bits(back["t"]) == bits(tensor)
    parameter = nn.ParameterList([tensor])
    assert bits(load_model(parameter, save_model(parameter, tmp_path / "n.safetensors"))[0]) == bits(tensor)


def test_views_and_gradients_are_written_as_what_they_show(tmp_path):
    base = torch.arange(6.0, requires_grad=True)
    tensors = {"base": base, "view": base.view(2, 3).t(), "part": base[2:4], "wide": base[:1].expand(4)}
    back, _ = load_tensors_file(save_tensors(tensors, tmp_path / "v.safetensors"))
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_loaded_tensors_are_free_of_the_file(tmp_path):
    path = save_tensors({"t": torch.zeros(3)}, tmp_path / "a.safetensors")
    back, _ = load_tensors_file(path)
    back["t"].add_(1)
    again, _ = load_tensors_file(path)
    assert torch.equal(again["t"], torch.zeros(3))


@pytest.mark.parametrize(
    ("tensors", "metadata", "text"),
    [
        ({"a": 1.0}, None, "expected 'a' to be a Tensor, but got float"),
        ({}, {"step": 3}, "expected metadata 'step' to be a str, but got int: 3"),
    ],
)
def test_only_tensors_and_text_are_written(tensors, metadata, text, tmp_path):
    with pytest.raises(TypeError, match=text):
        save_tensors(tensors, tmp_path / "a.safetensors", metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_the_format_lacks_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot write .*a.safetensors"):
        save_tensors({"a": torch.zeros(2, dtype=torch.complex128)}, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected path to be in an existing folder, but got .*nowhere"):
        save_tensors({}, tmp_path / "nowhere" / "a.safetensors")


# --- whole or not at all ---


@pytest.mark.parametrize("broken", ["save_file", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_other(broken, trained, tmp_path, monkeypatch):
    path = save_model(trained, tmp_path / "a.safetensors")
    old = path.read_bytes()
    changed = models.fresh_copy(trained, seed=3)

    def fail(*args, **kwargs):
        if broken == "save_file":
            # As when the disk fills up: something is there, but not all of it.
            args[1].write_bytes(b"half")
        raise OSError("no space left on device")

    where = {
        "save_file": "safetensors.torch.save_file",
        "fsync": "os.fsync",
        "replace": "pathlib.Path.replace",
    }
    with monkeypatch.context() as patch:
        patch.setattr(where[broken], fail)
        with pytest.raises(OSError, match="no space left on device"):
            save_model(changed, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    save_model(changed, path)
    assert same_state(load_model(trained, path), changed)


# --- files that are refused ---


class Danger:
    """Unpickling it calls something."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_pickles_are_refused_and_never_opened(kind, tmp_path):
    path = tmp_path / "model.pt"
    if kind == "plain":
        path.write_bytes(pickle.dumps(Danger()))
    else:
        torch.save({"w": Danger()}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"model.pt' is a pickle file and is refused.*safetensors"):
        load_model(nn.Linear(1, 1), path)


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_file_cut_short_is_refused_by_name(kept, trained, tmp_path):
    path = save_model(trained, tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cannot read .*cut.safetensors': it is cut short or not a"):
        load_model(trained, path)


def test_a_good_file_that_begins_like_a_pickle_is_read(tmp_path):
    # A header of 640 bytes makes the file begin with 80 02, as pickles of protocol 2 do.
    entry = {"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(entry).encode().ljust(640)
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 640) + header + struct.pack("<f", 1.5))
    assert path.read_bytes().startswith(checkpoints.PICKLED)
    tensors, metadata = load_tensors_file(path)
    assert tensors["t"].tolist() == [1.5]
    assert metadata == {}


def test_a_file_of_another_version_of_the_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT_VERSION", "2")
        path = save_model(nn.Linear(1, 1), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a.safetensors': expected format_version '1', but got '2'"):
        load_model(nn.Linear(1, 1), path)


def test_other_files_and_folders_are_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are not weights")
    with pytest.raises(CheckpointError, match=r"notes.txt': it is cut short or not a safetensors file"):
        load_tensors_file(path)
    with pytest.raises(CheckpointError, match="it is not a file"):
        load_tensors_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected path to be an existing path, but got .*none"):
        load_tensors_file(tmp_path / "none")
