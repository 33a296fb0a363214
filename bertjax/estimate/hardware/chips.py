"""The TPU chips that can be estimated for: what Google documents of them."""

from dataclasses import dataclass

from bertjax.errors import check

GB, GIB = 10**9, 2**30


@dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device, also where it has two cores."""

    name: str
    """As in a topology's name."""
    peak_flops: float
    """bfloat16 FLOP/s of a chip."""
    flops_per_cycle: int
    """FLOPs of all matrix units of a chip in a cycle: 2 a multiplier."""
    hbm_bytes: int
    """Memory of a chip that a program may have: what the compiler names when it refuses one."""
    hbm_bandwidth: float
    """Bytes a second between a chip and its memory."""
    ici_bandwidth: float
    """Bytes a second between a chip and all its neighbours in the slice, one way."""
    ici_links: int
    """Neighbours that a chip is linked with."""
    dcn_bandwidth: float
    """Bytes a second between a chip and other slices, one way."""
    source: str
    """Where Google documents it."""

    @property
    def clock(self) -> float:
        """Cycles a second: the peak over what a cycle does."""
        return self.peak_flops / self.flops_per_cycle

    @property
    def link_bandwidth(self) -> float:
        """Bytes a second of one link, one way."""
        return self.ici_bandwidth / self.ici_links


DOCS = "https://docs.cloud.google.com/tpu/docs/"

# Peaks, bandwidths and the numbers of cores and matrix units are from the pages named, whose 32,
# 16, 95 and 32 GB of memory include what the system keeps. ICI: the pages give both ways together
# (or, formerly, one way in Gbit/s); here is one way. DCN: of a v5p the page gives 50 Gbit/s a chip,
# of a v5e 6.4 Tbit/s a pod of 256; v4 is taken to have v5p's and v6e four times v5e's. FLOPs a
# cycle: four units of 128 x 128 multipliers a core, and two cores a chip in v4 and v5p. v6e's page
# says two units of 256 x 256, which would make its clock 3.5 GHz; but the compiler reckons with up
# to 369,000 FLOPs a cycle, more than these do, and at half that clock its copies take 81 % of the
# memory's bandwidth, as a v5e's do.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4",
            275e12,
            2 * 4 * 128**2 * 2,
            int(30.75 * GIB),
            1200 * GB,
            300 * GB,
            6,
            6.25 * GB,
            DOCS + "v4",
        ),
        Chip(
            "v5e",
            197e12,
            4 * 128**2 * 2,
            int(15.75 * GIB),
            819 * GB,
            200 * GB,
            4,
            3.125 * GB,
            DOCS + "v5e",
        ),
        Chip(
            "v5p",
            459e12,
            2 * 4 * 128**2 * 2,
            int(95.74 * GIB),
            2765 * GB,
            600 * GB,
            6,
            6.25 * GB,
            DOCS + "v5p",
        ),
        Chip(
            "v6e",
            918e12,
            4 * 256**2 * 2,
            int(31.25 * GIB),
            1638 * GB,
            400 * GB,
            4,
            12.5 * GB,
            DOCS + "v6e",
        ),
    )
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as `v5e:4x4`; `UserError` where it is none of `CHIPS`."""
    name = topology.partition(":")[0]
    check(
        name in CHIPS,
        where="--topology",
        found=topology or "nothing",
        expected=f"CHIP:SHAPE, the chip one of {', '.join(CHIPS)}",
    )
    return CHIPS[name]
