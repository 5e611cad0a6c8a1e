"""U-Nets: the decoder and head of segmentation-models-pytorch, on its encoders or on a small one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice, check_count
from ..heads import declare_head
from .normalization import Normalize, per_channel
from .small_cnn import convolution

SMALL = "small"


class UNet(nn.Module):
    """``segmentation_head(decoder(encoder(normalize(x))))``: the submodules that adapters address.

    The encoder returns its input and one feature map a stage; the decoder brings them back to its size.
    """

    def __init__(
        self, normalize: Normalize, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module
    ) -> None:
        super().__init__()
        self.normalize, self.encoder, self.decoder = normalize, encoder, decoder
        self.segmentation_head = segmentation_head
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, 1, H, W)`` or ``(B, K, H, W)`` of raw pixels ``(B, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.segmentation_head(self.decoder(self.encoder(self.normalize(x))))
        return logits

    def reset_parameters(self) -> None:
        """Initialise decoder and head as segmentation-models-pytorch does; the encoder resets itself."""
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head

        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)


class SmallEncoder(nn.Module):
    """One stage a width, each a strided and a plain 3x3 convolution with batch norm and ReLU.

    Returns ``[x, stage 1, stage 2, ...]``; stage i is ``(B, widths[i - 1], H / 2**i, W / 2**i)``, rounded up.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = [channels, *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, width, stride=2), convolution(width, width))
            for before, width in zip(self.out_channels, widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the input and the features of every stage."""
        features = [x]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


@checked
def unet(
    num_classes: int = 2,
    channels: int = 3,
    *,
    encoder: str = SMALL,
    widths: Sequence[int] | None = None,
    decoder_widths: Sequence[int] | None = None,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> nn.Module:
    """Return a U-Net (arXiv 1505.04597) with fresh weights, never downloaded ones; head ``"segmentation_head"``.

    Input ``(B, channels, H, W)``, raw pixels in [0, 1]. Output logits ``(B, 1, H, W)`` for two classes
    (positive is class 1), else ``(B, num_classes, H, W)``. The small one has 0.39 million parameters and is
    made for 48 to 64 pixels; any size works.

    Args:
        num_classes: number of classes, the background included: 2 for a binary mask.
        channels: number of image channels.
        encoder: ``"small"``, or an encoder of segmentation-models-pytorch, e.g. ``"resnet34"``.
        widths: channels of the small encoder's stages, (16, 32, 64, 96) when not given; each halves the size.
        decoder_widths: channels of the decoder's blocks, deepest first; (64, 32, 16, 16) for the small
            encoder and (256, 128, 64, 32, 16) for the others when not given. With fewer than 5, an encoder of
            segmentation-models-pytorch may hold deeper stages that take no part.
        mean: of the pixels: one number a channel in [0, 1], or one for all.
        std: as many positive numbers.

    Raises:
        TypeError: On an argument out of range, an unknown encoder, or widths that do not go together.
        ValueError: On an argument out of range, an unknown encoder, or widths that do not go together.
    """
    check_count("num_classes", num_classes, low=2)
    check_count("channels", channels)
    normalize = per_channel(mean, std, channels)

    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    logits = 1 if num_classes == 2 else num_classes
    if encoder == SMALL:
        stages = _widths("widths", (16, 32, 64, 96) if widths is None else widths)
        blocks = _widths("decoder_widths", (64, 32, 16, 16) if decoder_widths is None else decoder_widths)
        if len(stages) != len(blocks):
            raise ValueError(f"expected decoder_widths to have one number a stage of widths={stages}, but got {blocks}")
        small = SmallEncoder(channels, stages)
        decoder = UnetDecoder(small.out_channels, blocks, n_blocks=len(blocks))
        head = SegmentationHead(blocks[-1], logits, kernel_size=3)
        return declare_head(UNet(normalize, small, decoder, head), "segmentation_head")

    if widths is not None:
        raise ValueError(f"expected widths for encoder='small' only, but got encoder={encoder!r} and widths={widths}")
    if not str(encoder).startswith("tu-"):
        # The names with "timm-" are deprecated in favour of "tu-" followed by any name that timm knows.
        known = [name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")]
        check_choice("encoder", encoder, [SMALL, *known])
    blocks = _widths("decoder_widths", (256, 128, 64, 32, 16) if decoder_widths is None else decoder_widths)
    if len(blocks) not in (3, 4, 5):
        raise ValueError(f"expected decoder_widths to have 3, 4 or 5 numbers, but got {blocks}")
    whole = smp.Unet(
        encoder,
        encoder_depth=len(blocks),
        encoder_weights=None,
        decoder_channels=blocks,
        in_channels=channels,
        classes=logits,
    )
    return declare_head(UNet(normalize, whole.encoder, whole.decoder, whole.segmentation_head), "segmentation_head")


def _widths(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, (int, str)) or len(values) == 0:
        raise ValueError(f"expected {name} to be a sequence of channel numbers, but got {values!r}")
    return tuple(check_count(name, value) for value in values)
