"""Figures of the TPU chips that can be estimated for, from Google's documentation."""

from dataclasses import dataclass

from bertjax.errors import check

# Bandwidths are documented in powers of ten; the compiler names its limits in powers of two.
GB, GIB = 10**9, 2**30


@dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device, also where it has two cores."""

    name: str
    """The chip's part of a topology's name, such as `v5e`."""
    peak_flops: float
    """bfloat16 FLOP/s of a chip."""
    flops_per_cycle: int
    """FLOPs of all matrix units of a chip in a cycle: 2 for each multiplier."""
    hbm_bytes: int
    """Bytes of a chip that a program may use: the limit that the compiler names when it refuses."""
    hbm_bandwidth: float
    """Bytes a second between a chip and its memory."""
    ici_bandwidth: float
    """Bytes a second between a chip and all its neighbors in the slice, one way."""
    ici_links: int
    """The number of neighbors that a chip is linked with."""
    dcn_bandwidth: float
    """Bytes a second between a chip and other slices, one way."""
    source: str
    """The page that documents it."""

    @property
    def clock(self) -> float:
        """Cycles a second: the peak over the FLOPs of a cycle."""
        return self.peak_flops / self.flops_per_cycle

    @property
    def link_bandwidth(self) -> float:
        """Bytes a second of one link, one way."""
        return self.ici_bandwidth / self.ici_links


DOCS = "https://docs.cloud.google.com/tpu/docs/"

# Peaks, bandwidths and the numbers of cores and matrix units are from the pages named. Their sizes
# of memory, 32, 16, 95 and 32 GB, include what the system keeps.
#
# ICI: the pages give both ways together (or, formerly, one way in Gbit/s); here is one way.
#
# DCN: for v5p the page gives 50 Gbit/s a chip, for v5e 6.4 Tbit/s a pod of 256. v4 is assumed to
# have that of v5p, and v6e four times that of v5e.
#
# FLOPs a cycle: four units of 128 x 128 multipliers a core, and two cores a chip in v4 and v5p. The
# page of v6e says two units of 256 x 256, which would make its clock 3.5 GHz. But the compiler
# calculates with up to 369,000 FLOPs a cycle, more than these do; and at half that clock its copies
# take 81 % of the memory's bandwidth, as those of v5e do.
_CHIPS = (
    Chip(
        name="v4",
        peak_flops=275e12,
        flops_per_cycle=2 * 4 * 128**2 * 2,
        hbm_bytes=int(30.75 * GIB),
        hbm_bandwidth=1200 * GB,
        ici_bandwidth=300 * GB,
        ici_links=6,
        dcn_bandwidth=6.25 * GB,
        source=DOCS + "v4",
    ),
    Chip(
        name="v5e",
        peak_flops=197e12,
        flops_per_cycle=4 * 128**2 * 2,
        hbm_bytes=int(15.75 * GIB),
        hbm_bandwidth=819 * GB,
        ici_bandwidth=200 * GB,
        ici_links=4,
        dcn_bandwidth=3.125 * GB,
        source=DOCS + "v5e",
    ),
    Chip(
        name="v5p",
        peak_flops=459e12,
        flops_per_cycle=2 * 4 * 128**2 * 2,
        hbm_bytes=int(95.74 * GIB),
        hbm_bandwidth=2765 * GB,
        ici_bandwidth=600 * GB,
        ici_links=6,
        dcn_bandwidth=6.25 * GB,
        source=DOCS + "v5p",
    ),
    Chip(
        name="v6e",
        peak_flops=918e12,
        flops_per_cycle=4 * 256**2 * 2,
        hbm_bytes=int(31.25 * GIB),
        hbm_bandwidth=1638 * GB,
        ici_bandwidth=400 * GB,
        ici_links=4,
        dcn_bandwidth=12.5 * GB,
        source=DOCS + "v6e",
    ),
)
CHIPS = {chip.name: chip for chip in _CHIPS}
"""The chips by name."""


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as `v5e:4x4`; `UserError` where it is none of `CHIPS`."""
    name = topology.partition(":")[0]
    check(
        name in CHIPS,
        where="--topology",
        found=topology or "nothing",
        expected=f"CHIP:SHAPE, the chip one of {', '.join(CHIPS)}",
    )
    return CHIPS[name]
