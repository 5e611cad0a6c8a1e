"""Which parts of a network follow each other, and which parameters "last:K" means."""

import pytest
import torchvision
from torch import nn

from unlearn_kit import UnlearnTask, data, engine, models
from unlearn_kit import losses as L
from unlearn_kit.models import parameters_of, stages


def test_the_stages_of_networks_people_know_are_their_blocks():
    assert stages(models.small_cnn()) == [(f"block{i}",) for i in range(1, 6)]
    resnet = torchvision.models.resnet18(num_classes=3)
    assert stages(resnet) == [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    vit = torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3)
    # The trunk is looked into; a norm belongs to the block before it; what holds the head is no stage by itself.
    assert stages(vit)[-2:] == [("encoder.layers.encoder_layer_0",), ("encoder.layers.encoder_layer_1", "encoder.ln")]
    wrapped = models.with_normalization(resnet, 0.5, 0.5)
    assert stages(wrapped)[-1] == ("network.layer4",)


def test_a_part_is_the_head_with_the_stages_before_it():
    model = models.small_cnn()
    assert parameters_of(model, "head") == parameters_of(model, "last:0") == ["head.weight", "head.bias"]
    assert {name.partition(".")[0] for name in parameters_of(model, "last:2")} == {"block4", "block5", "head"}
    assert parameters_of(model, "last:9") == parameters_of(model, "all")
    for part in ("first:1", "last:-1", "last:", "block5"):
        with pytest.raises(ValueError, match=f"expected part to be 'all', 'head' or 'last:K'.*but got '{part}'"):
            parameters_of(model, part)
    with pytest.raises(ValueError, match="does not declare which submodule is its head"):
        stages(nn.ModuleDict({"a": nn.Linear(1, 1)}))


def test_a_phase_trains_the_part_it_is_told():
    digits = data.load("digits", train_size=60)
    model = models.build("small-cnn", 10, channels=1, width=4, seed=0)
    model.block5[1].bias.requires_grad_(False)
    streams = {"retain": digits.train}
    phase = engine.Phase(L.cross_entropy(on="retain"), streams, steps=2, batch_size=8, trainable="last:1")
    trained = engine.fit(model, phase, seed=0).model
    moved = {
        name
        for (name, after), before in zip(trained.named_parameters(), model.parameters(), strict=True)
        if not after.equal(before)
    }
    assert moved == {*parameters_of(model, "last:1")} - {"block5.1.bias"}
    for make in (lambda: engine.Training(trainable="tail"), lambda: engine.Phase(
        L.cross_entropy(on="retain"), streams, steps=1, trainable="tail"
    )):  # fmt: skip
        with pytest.raises(ValueError, match="expected trainable to be 'all', 'head' or 'last:K'"):
            make()
    task = UnlearnTask.forget_class(digits.train, digits.test, 3)
    import algorithms

    revised = algorithms.finetune(model, task, steps=2, batch_size=8, trainable="head")
    assert revised.config["trainable"] == "head"
    assert revised.model.block5[0].weight.equal(model.block5[0].weight)
    assert not revised.model.head.weight.equal(model.head.weight)
