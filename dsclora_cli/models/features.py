"""Feature maps of a network beside its output, for losses that compare them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor, nn

from dsclora_cli.errors import UsageError
from dsclora_cli.models.network import Network


class FeatureExtractor(nn.Module):
    """A network that answers with its output and some of its feature maps.

    `(N, 3, H, W)` to the network's output and a tuple of maps, one for each of `names` in that order.
    """

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See the class."""
        output, kept = self.network.features(x, self.names)
        return output, tuple(kept[name] for name in self.names)


class ProjectedFeatures(nn.Module):
    """A feature extractor whose maps pass 1x1 convolutions to the width of a teacher; the convolutions are trained too.

    Answers as the `FeatureExtractor` it is made from, the maps being `(N, width, H, W)`.
    """

    def __init__(self, taps: FeatureExtractor, width: int) -> None:
        super().__init__()
        self.taps = taps
        self.regressors = nn.ModuleList(nn.Conv2d(taps.network.config.channels, width, 1) for _ in taps.names)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See the class."""
        output, maps = self.taps(x)
        return output, tuple(regressor(each) for regressor, each in zip(self.regressors, maps, strict=True))


def select_feature_maps(network: Network, patterns: Iterable[str]) -> tuple[str, ...]:
    """The feature maps of a network that match any of the patterns, in the network's order.

    Raises UsageError for a pattern that matches none, and for no pattern.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [name for name in network.feature_names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(
                f"no feature map's name matches {pattern!r}", f"there are {', '.join(network.feature_names)}"
            )
        chosen.update(matched)
    if not chosen:
        raise UsageError("no feature map is named", f"there are {', '.join(network.feature_names)}")
    return tuple(name for name in network.feature_names if name in chosen)
