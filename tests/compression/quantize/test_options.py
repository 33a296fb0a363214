"""Options that no quantizer has are refused before anything is read."""

import pytest

from bertjax.compression.measuring import Measuring
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "--format: found 'tflite', expected one of onnx, stablehlo"),
        ({"bits": 3}, "--bits: found 3, expected 4 or 8 in format onnx"),
        ({"bits": 4}, "--activations: found dynamic, expected none with --bits 4"),
        ({"bits": 2, "format": "stablehlo"}, "--bits: found 2, expected 4 or 8 in format stableh"),
        (
            {"bits": 4, "format": "stablehlo"},
            "--activations: found dynamic, expected none with --bits 4",
        ),
        ({"activations": "some"}, "--activations: found 'some', expected one of none, dynamic"),
        ({"granularity": "row"}, "--granularity: found 'row', expected one of channel, tensor"),
        ({"float_layers": -1}, "--float-layers: found -1, expected 0 to 1000"),
        ({"calibration_rows": 0}, "--calibration-rows: found 0, expected 1 to 100000"),
        ({"calibration": "x.txt"}, "--calibration: found activations dynamic, expected static"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        QuantizeOptions(**options)


@pytest.mark.parametrize("options", [{"seconds": float("nan")}, {"seconds": -1.0}, {"threads": -1}])
def test_impossible_measurements_are_refused(options):
    with pytest.raises(UserError, match="--(seconds|threads): found .*, expected 0 to"):
        Measuring(**options)


def test_the_name_says_bits_and_granularity():
    assert QuantizeOptions(granularity="tensor").name == "int8 per tensor"
