"""Foundation models of earth observation as trunks: DOFA, Copernicus-FM, Panopticon, Scale-MAE and CROMA.

Their parts are torchgeo's, so that its weight files fit. What differs is that images of any size go through: positions
are interpolated to the image's patches, and what hangs on the wavelengths alone is computed once. All of them are
vision transformers, of which four evenly spread blocks give the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, scaled_dot_product_attention

from geoseg.extras import extra_module
from geoseg.models.networks.pyramid import LEVELS, Trunk, grid_of, spread, stride_of
from geoseg.models.networks.timm_facts import made
from geoseg.models.wavelengths import bandwidth_um

BLOCKS = len(LEVELS)  # of a transformer, how many give a map


def torchgeo_part(name: str) -> ModuleType:
    """A module of torchgeo's models.

    Raises:
        InputError: torchgeo is not installed.
    """
    extra_module("torchgeo", extra="torchgeo", needed_by="a foundation model")
    return extra_module(f"torchgeo.models.{name}", extra="torchgeo", needed_by="a foundation model")


class TokenTrunk(Trunk):
    """A vision transformer as a trunk; what is inside says how patches become tokens.

    Attributes:
        patch: Rows and columns of a patch.
        blocks: The transformer's.
    """

    patch: int
    blocks: nn.ModuleList
    prefixed: bool = True

    def settle(self, *, width: int, blocks: int) -> None:
        """Notes what the trunk gives: maps of `width` channels of four of so many blocks."""
        self.taken = spread(BLOCKS, blocks)
        self.strides = (stride_of(self.patch),) * BLOCKS
        self.channels = (width,) * BLOCKS

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:
        """The class token, where there is one, and the patches' tokens row by row: `(n, token, channel)`."""
        raise NotImplementedError

    def blocked(self, tokens: Tensor, rows: int, cols: int) -> list[Tensor]:  # noqa: ARG002 - some need the grid
        """The tokens after each block."""
        found = []
        for block in self.blocks:
            tokens = block(tokens)
            found.append(tokens)
        return found

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The maps of four blocks, and the class token beside each where there is one."""
        rows, cols = image.shape[-2] // self.strides[0], image.shape[-1] // self.strides[0]
        inner = grid_of(image, patch=self.patch, stride=self.strides[0])
        steps = self.blocked(self.tokens(inner, rows, cols), rows, cols)
        first = int(self.prefixed)
        maps = [steps[index][:, first:].transpose(1, 2).reshape(image.shape[0], -1, rows, cols) for index in self.taken]
        return maps, [steps[index][:, :1] if self.prefixed else None for index in self.taken]


def positions(embedding: Tensor, rows: int, cols: int) -> Tensor:
    """Position embeddings of a square grid, resized to another: `(1, row * col, channel)`, bicubic.

    Args:
        embedding: `(1, side * side, channel)`.
        rows: Of the new grid.
        cols: Of the new grid.
    """
    side = round(embedding.shape[1] ** 0.5)
    if (rows, cols) == (side, side):
        return embedding
    square = embedding.transpose(1, 2).reshape(1, -1, side, side)
    resized = interpolate(square, size=(rows, cols), mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


class Dofa(TokenTrunk):
    """DOFA (Xiong et al. 2024): the patch embedding's kernels come from the bands' wavelengths.

    Args:
        wavelengths_um: Of each band.
        options: Of torchgeo's `DOFA`.
    """

    def __init__(self, *, wavelengths_um: tuple[float, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        whole = torchgeo_part("dofa").DOFA(**{**options, "num_classes": 0})
        self.patch = whole.patch_size
        self.cls_token, self.pos_embed = whole.cls_token, whole.pos_embed
        self.patch_embed, self.blocks = whole.patch_embed, whole.blocks
        self.register_buffer("wavelengths", torch.tensor(wavelengths_um, dtype=torch.float32), persistent=False)
        self.settle(width=whole.embed_dim, blocks=len(self.blocks))

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:
        """As `DOFA.forward_features` begins."""
        patches, _ = self.patch_embed(image, self.wavelengths)
        patches = patches + positions(self.pos_embed[:, 1:], rows, cols)
        prefix = (self.cls_token + self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        return torch.cat((prefix, patches), dim=1)


class CopernicusFM(TokenTrunk):
    """Copernicus-FM (Wang et al. 2025): kernels from wavelengths and bandwidths.

    Place, time and area are left to the tokens that stand for not knowing them.

    Args:
        wavelengths_um: Of each band.
        options: Of torchgeo's `CopernicusFM`, and `bandwidths_um` of each band; by default those of the nearest bands
            of Sentinel-2, which it was trained on.
    """

    def __init__(self, *, wavelengths_um: tuple[float, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        given = dict(options)
        widths = given.pop("bandwidths_um", None) or [bandwidth_um(um) for um in wavelengths_um]
        if len(widths) != len(wavelengths_um):
            raise ValueError(f"bandwidths_um has {len(widths)} values for {len(wavelengths_um)} bands")
        whole = torchgeo_part("copernicusfm").CopernicusFM(**given)
        self.patch = whole.patch_embed_spectral.kernel_size
        self.cls_token, self.pos_embed = whole.cls_token, whole.pos_embed
        self.coord_token, self.scale_token, self.time_token = whole.coord_token, whole.scale_token, whole.time_token
        self.coord_fc, self.scale_fc, self.time_fc = whole.coord_fc, whole.scale_fc, whole.time_fc
        self.patch_embed_spectral, self.blocks = whole.patch_embed_spectral, whole.blocks
        embed = self.patch_embed_spectral
        nanometres = [1000 * torch.tensor(values, dtype=torch.float32) for values in (wavelengths_um, widths)]
        waves = embed.spectrum_central_expansion(nanometres[0], embed.hyper_dim)
        waves = waves + embed.spectrum_bandwidth_expansion(nanometres[1], embed.hyper_dim)
        self.register_buffer("waves", waves, persistent=False)
        self.settle(width=embed.embed_dim, blocks=len(self.blocks))

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:
        """As `CopernicusFM.forward_features` begins, where all metadata is unknown."""
        embed = self.patch_embed_spectral
        kernels, bias = embed.weight_generator(embed.fclayer(self.waves))
        kernels = kernels.view(-1, self.patch, self.patch, embed.embed_dim).permute(3, 0, 1, 2)
        scale = embed.scaler
        patches = conv2d(image, kernels * scale, bias.view(-1) * scale, stride=self.patch, padding=1)
        patches = patches.flatten(2).transpose(1, 2)
        unknown = self.coord_fc(self.coord_token) + self.scale_fc(self.scale_token) + self.time_fc(self.time_token)
        patches = patches + positions(self.pos_embed[:, 1:], rows, cols) + unknown
        prefix = (self.cls_token + self.pos_embed[:, :1] + unknown).expand(patches.shape[0], -1, -1)
        return torch.cat((prefix, patches), dim=1)


class Panopticon(TokenTrunk):
    """Panopticon (Waldmann et al. 2025): bands are embedded one by one, and attention over them makes one token.

    Args:
        wavelengths_um: Of each band.
        options: `attn_dim`, `embed_dim` and `img_size` of torchgeo's `Panopticon`; `depth` and `num_heads` of its
            transformer.
    """

    spectrum: Tensor

    def __init__(self, *, wavelengths_um: tuple[float, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        library = torchgeo_part("panopticon")
        given = {"attn_dim": 2304, "embed_dim": 768, "img_size": 224, **options}
        attn_dim, width, side = given.pop("attn_dim"), given.pop("embed_dim"), given.pop("img_size")
        self.patch = 14
        whole = made("vit_base_patch14_dinov2", num_classes=0, embed_dim=width, **given)
        self.patch_embed = library.PanopticonPE(
            attn_dim=attn_dim, embed_dim=width, patch_size=self.patch, img_size=side,
            chnfus_cfg={"attn_cfg": {"num_heads": 16}},
        )  # fmt: skip
        self.cls_token, self.blocks = whole.cls_token, whole.blocks
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + (side // self.patch) ** 2, width))
        nanometres = 1000 * torch.tensor([wavelengths_um], dtype=torch.float32)
        spectrum = library.get_1d_sincos_pos_embed_from_grid_torch(attn_dim, nanometres.round())
        self.register_buffer("spectrum", spectrum, persistent=False)
        # The embeddings of radar channels are of no use to optical bands; their weights stay in the file's layout.
        self.patch_embed.chnfus.chnemb.requires_grad_(requires_grad=False)
        self.settle(width=width, blocks=len(self.blocks))

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:
        """As `PanopticonPE` and timm's transformer begin."""
        embed = self.patch_embed
        bands, _, _ = embed.conv3d(image)  # (n, band, patch, channel)
        bands = bands + self.spectrum[:, None]
        patches = bands.transpose(1, 2).flatten(0, 1)
        query = embed.chnfus.query.expand(patches.shape[0], -1, -1)
        merged = embed.chnfus.xattn(query, patches, patches).reshape(bands.shape[0], rows * cols, -1)
        tokens = embed.proj(merged) + positions(self.pos_embed[:, 1:], rows, cols)
        prefix = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat((prefix, tokens), dim=1)


class ScaleMae(TokenTrunk):
    """Scale-MAE (Reed et al. 2023): positions in metres on the ground.

    Args:
        bands: Of the image; the weights are of red, green and blue.
        options: Of timm's `VisionTransformer`, and `gsd_m`, the pixel's size in metres (1 by default).
    """

    def __init__(self, *, bands: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        library = torchgeo_part("scale_mae")
        given = dict(options)
        self.gsd_m = float(given.pop("gsd_m", 1.0))
        norm = partial(nn.LayerNorm, eps=1e-6)
        whole = library.ScaleMAE(in_chans=bands, num_classes=0, norm_layer=norm, **given)
        self.patch = whole.patch_embed.patch_size[0]
        self.patch_embed, self.cls_token, self.blocks = whole.patch_embed, whole.cls_token, whole.blocks
        self.table = library.get_2d_sincos_pos_embed_from_grid_torch
        self.settle(width=whole.embed_dim, blocks=len(self.blocks))

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:
        """As `ScaleMAE.forward_features` begins."""
        patches = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        across = torch.arange(cols, device=image.device, dtype=patches.dtype)
        down = torch.arange(rows, device=image.device, dtype=patches.dtype)
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"))[:, None] * self.gsd_m
        patches = patches + self.table(patches.shape[-1], grid)
        return torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)


class Croma(TokenTrunk):
    """The optical encoder of CROMA (Fuller, Millard and Green 2023), or that of radar.

    Attention is weakened by the distance of two patches, so that any grid will do (ALiBi, Press et al. 2022). Its
    memory grows with the fourth power of the image's side: patches of 8 pixels are meant for images of about 120.

    Args:
        bands: Of the image; the optical weights are of the 12 bands of Sentinel-2 without B10, radar's of VV and VH.
        options: `encoder_dim` and `encoder_depth` of torchgeo's `CROMA`.
    """

    prefixed = False
    slopes: Tensor

    def __init__(self, *, bands: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        given = {"encoder_dim": 768, "encoder_depth": 12, **options}
        whole = torchgeo_part("croma").ViT(
            dim=given.pop("encoder_dim"), depth=given.pop("encoder_depth"), in_channels=bands
        )
        if given:
            raise ValueError(f"croma has no option {', '.join(sorted(given))}; it has encoder_dim, encoder_depth")
        self.patch, self.heads, self.bands = whole.patch_size, whole.num_heads, bands
        self.linear_input, self.transformer = whole.linear_input, whole.transformer
        self.transformer.norm_out = nn.Identity()
        slopes = 2.0 ** (-8.0 * torch.arange(1, self.heads + 1) / self.heads)
        self.register_buffer("slopes", slopes[:, None, None], persistent=False)
        self.settle(width=whole.dim, blocks=whole.depth)

    def tokens(self, image: Tensor, rows: int, cols: int) -> Tensor:  # noqa: ARG002 - as the others
        """A linear layer of each patch's pixels, band by band, which is a convolution."""
        weight = self.linear_input.weight.view(-1, self.bands, self.patch, self.patch)
        return conv2d(image, weight, self.linear_input.bias, stride=self.patch).flatten(2).transpose(1, 2)

    def blocked(self, tokens: Tensor, rows: int, cols: int) -> list[Tensor]:
        """As `BaseTransformer.forward` does."""
        down = torch.arange(rows, device=tokens.device, dtype=tokens.dtype).repeat_interleave(cols)
        across = torch.arange(cols, device=tokens.device, dtype=tokens.dtype).repeat(rows)
        apart = (down[:, None] - down).square() + (across[:, None] - across).square()
        bias = -apart.sqrt() * self.slopes.to(tokens.dtype)
        found = []
        for attention, feed_forward in self.transformer.layers:
            tokens = self._attend(attention, tokens, bias) + tokens
            tokens = feed_forward(tokens) + tokens
            found.append(tokens)
        return found

    def _attend(self, attention: Any, tokens: Tensor, bias: Tensor) -> Tensor:
        parts = attention.to_qkv(attention.input_norm(tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias[None], scale=attention.scale)
        found: Tensor = attention.to_out(mixed.transpose(1, 2).flatten(2))
        return found
