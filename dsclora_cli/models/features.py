"""Feature maps of a network next to the output, for losses that compare feature maps."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor, nn

from dsclora_cli.errors import UsageError
from dsclora_cli.models.network import Network


class FeatureExtractor(nn.Module):
    """A network that returns the output and the feature maps called `names`, in the order of `names`."""

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Upscale `(N, 3, H, W)`; return the output `(N, 3, scale*H, scale*W)` and the maps, `(N, C, H, W)` each."""
        kept: dict[str, Tensor] = {}

        def keep(name: str, feature_map: Tensor) -> Tensor:
            # Maps that nobody compares are not stored, so that their memory is free at once.
            if name in self.names:
                kept[name] = feature_map
            return feature_map

        output = self.network(x, keep)
        return output, tuple(kept[name] for name in self.names)


class ProjectedFeatures(nn.Module):
    """A feature extractor with a trainable 1x1 convolution from every map to the width of a teacher.

    The names of the attributes are keys in training checkpoints.
    """

    def __init__(self, taps: FeatureExtractor, width: int) -> None:
        super().__init__()
        self.taps = taps
        self.regressors = nn.ModuleList(nn.Conv2d(taps.network.config.channels, width, 1) for _ in taps.names)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Upscale `(N, 3, H, W)`; return the output `(N, 3, scale*H, scale*W)` and maps `(N, width, H, W)`."""
        output, maps = self.taps(x)
        return output, tuple(regressor(each) for regressor, each in zip(self.regressors, maps, strict=True))


def select_feature_maps(network: Network, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of feature maps that match any of the shell patterns, in the order of the patterns.

    The matches of one pattern are in the order of the network. A map that several patterns match stands where the first
    of them has it.

    Raises UsageError for a pattern without a match, and for an empty list of patterns.
    """
    chosen: dict[str, None] = {}  # in order, each name once
    for pattern in patterns:
        matched = [name for name in network.feature_names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(
                f"no feature map's name matches {pattern!r}", f"there are {', '.join(network.feature_names)}"
            )
        chosen.update(dict.fromkeys(matched))
    if not chosen:
        raise UsageError("no feature map is named", f"there are {', '.join(network.feature_names)}")
    return tuple(chosen)
