"""All values that the paper prints (arXiv 2312.08128), with their digits: 24.20 is not 24.2.

Rows have the names of the operating points in `configs/table` and `configs/figure`. Columns: `fid`, `clip_score`;
`tflops` per image; `saving` of FLOPs in %; `gflops` per pass at batch 1; `gflops_of_two` per pass at batch 2; `gmacs`;
`parameters` in millions; `latency_…` in ms on that device.
"""

from collections.abc import Mapping
from decimal import Decimal

Figures = Mapping[str, Mapping[str, Decimal]]  # row → column → value


def _read(text: str) -> dict[str, dict[str, Decimal]]:
    """Parses a table with columns separated by `|`; cells that the paper leaves empty are omitted."""
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {
        name: {column: Decimal(cell) for column, cell in zip(head[1:], cells, strict=True) if cell}
        for name, *cells in lines
    }


# MS-COCO 2017-5K, 512 × 512, 8 DPM++ steps.
_TABLE_1 = _read("""
row                                  | fid   | clip_score | tflops | saving | latency_rtx3080 | latency_phone
Meng et al.                          | 26.9  | 0.300      | 6.4    |        | 320             |
SnapFusion                           | 24.20 | 0.300      | 4.0    |        | 185             |
BK-SDM-Base                          | 29.26 | 0.291      | 8.4    |        | 348             |
BK-SDM-Small                         | 29.48 | 0.272      | 8.2    |        | 336             |
BK-SDM-Tiny                          | 31.48 | 0.268      | 7.8    |        | 313             |
InstaFlow (1 step)                   | 29.30 | 0.283      | 0.8    |        | 40              |
SD UNet                              | 24.64 | 0.300      | 10.8   |        | 454             | 3968
SD UNet + Clockwork                  | 24.11 | 0.295      | 7.3    | 32     | 341             | 3176
Efficient UNet                       | 24.22 | 0.302      | 9.5    |        | 330             | 1960
Efficient UNet + Clockwork           | 23.21 | 0.296      | 5.9    | 38     | 213             | 1196
Distilled Efficient UNet             | 25.75 | 0.297      | 4.7    |        | 240             | 980
Distilled Efficient UNet + Clockwork | 24.45 | 0.295      | 2.9    | 38     | 154             | 598
""")

# MS-COCO 2014-30K, 256 × 256.
_TABLE_2 = _read("""
row                                  | fid   | clip_score | tflops
SnapFusion                           | 14.00 | 0.300      | 4.0
BK-SDM-Base                          | 17.23 | 0.287      | 8.4
BK-SDM-Small                         | 17.72 | 0.268      | 8.2
BK-SDM-Tiny                          | 18.64 | 0.265      | 7.8
InstaFlow (1 step)                   | 20.00 |            | 0.8
SD UNet                              | 12.77 | 0.296      | 10.8
SD UNet + Clockwork                  | 12.27 | 0.291      | 7.3
Efficient UNet                       | 12.33 | 0.296      | 9.5
Efficient UNet + Clockwork           | 11.14 | 0.290      | 5.9
Distilled Efficient UNet             | 13.92 | 0.292      | 4.7
Distilled Efficient UNet + Clockwork | 12.37 | 0.291      | 2.9
""")

# Ablations of adaptor, clock and cut-off; FLOPs of one forward step, batch of two.
_TABLE_3 = _read("""
row                         | fid   | clip_score | gflops_of_two | parameters
Efficient UNet              | 24.22 | 0.302      | 1187          |
Identity                    | 24.36 | 0.290      | 287           | 0
ResNet                      | 23.21 | 0.296      | 301           | 14
UNet                        | 23.18 | 0.296      | 324           | 152
UNet-light                  | 23.87 | 0.294      | 289           | 3
Clock {2,4,6,8}             | 23.21 | 0.296      | 301           |
Clock {5,6,7,8}             | 28.07 | 0.286      | 301           |
Clock {3,4,5,6}             | 33.10 | 0.271      | 301           |
Cut-off stage 1 (32 × 32)   | 23.21 | 0.296      | 301           |
Cut-off stage 2 (16 × 16)   | 24.49 | 0.296      | 734           |
""")

# Solvers. The paper prints 9.5 → 5.9 TFLOPs for all of them. This does not include PNDM's ninth UNet call, so PNDM's
# cells are empty.
_TABLE_4 = _read("""
row               | fid   | clip_score | tflops
DPM++             | 24.22 | 0.302      | 9.5
DPM++ + Clockwork | 23.21 | 0.296      | 5.9
DPM               | 24.32 | 0.301      | 9.5
DPM + Clockwork   | 23.24 | 0.296      | 5.9
PNDM              | 35.64 | 0.272      |
PNDM + Clockwork  | 33.15 | 0.280      |
DDIM              | 34.72 | 0.287      | 9.5
DDIM + Clockwork  | 38.38 | 0.280      | 5.9
""")

# Adaptor inputs; FLOPs of one adaptor pass.
_TABLE_5 = _read("""
row                                        | fid    | clip_score | gflops
Distilled Efficient UNet                   | 25.75  | 0.297      |
r_in, t_emb                                | 40.73  | 0.262      | 150
r_out[t+1], t_emb                          | 24.76  | 0.295      | 150
r_in, r_out[t+1], t_emb                    | 24.45  | 0.295      | 150
r_in, r_out[t+1], t_emb, text_emb          | 24.45  | 0.295      | 150
Model distillation: r_in, t_emb, text_emb  | 117.64 | 0.06       | 150
""")

# Latency in ms, 8 steps.
_TABLE_6 = _read("""
row                                  | latency_rtx3080 | latency_rtx2080ti | latency_v100 | latency_a100
SD UNet                              | 454             | 589               | 453          | 235
SD UNet + Clockwork                  | 341             | 440               | 360          | 183
Efficient UNet                       | 330             | 427               | 312          | 176
Efficient UNet + Clockwork           | 213             | 268               | 212          | 118
Distilled Efficient UNet             | 240             | 302               | 245          | 191
Distilled Efficient UNet + Clockwork | 154             | 190               | 159          | 122
""")

# Figure 4 is a plot; its points at 8 steps are those of Table 1.
_FIGURE_4 = {f"{row}, 8 steps": figures for row, figures in _TABLE_1.items() if "UNet" in row}

# Text-guided editing with the identity at clock 2, 1000 inversion and 50 generation steps: "33%".
_FIGURE_6 = _read("""
row                                    | saving
Identity, clock 2, 1000 inversion steps | 33
""")

# SD v1.5 by block: multiply-adds of convolutions and linear layers.
_FIGURE_8 = _read("""
row    | gmacs  | parameters
DOWN-0 | 32.9   | 10.52
DOWN-1 | 31.3   | 36.82
DOWN-2 | 31.5   | 140.0
DOWN-3 | 3.78   | 62.28
MID    | 6.03   | 97.04
UP-0   | 12.9   | 162.2
UP-1   | 75.1   | 258.3
UP-2   | 79.1   | 71.41
UP-3   | 66.0   | 18.81
Total  | 338.61 | 859.52
""")

PUBLISHED: dict[str, Figures] = {
    "table 1": _TABLE_1,
    "table 2": _TABLE_2,
    "table 3": _TABLE_3,
    "table 4": _TABLE_4,
    "table 5": _TABLE_5,
    "table 6": _TABLE_6,
    "figure 4": _FIGURE_4,
    "figure 6": _FIGURE_6,
    "figure 8": _FIGURE_8,
    "figure 15": _FIGURE_6,  # the same runs, separately for real and fake images
}

# Table 7: Plug-and-Play's settings.
PLUG_AND_PLAY: dict[str, str | float | bool] = {
    "inversion": "ddim",
    "generation": "ddim",
    "inversion_prompt": "a <style> of an <instance>",
    "guidance": 15.0,
    "negative_prompt": "ugly, blurry, black, low res, unrealistic",
    "tau_a": 0.5,
    "tau_f": 0.8,
    "extract_reverse": False,
}

# Why the FLOPs of a row cannot be reproduced.
NOTES = {
    "SnapFusion": "its authors' count of a UNet with further unpublished changes; the Efficient UNet with one pass per "
    "step has 4.7 (paper) to 4.9 (full)",
}


def convention(figure: str, row: str) -> str:
    """Returns the convention in which the paper counts the FLOPs of a row; the paper mixes three (docs/flops.md).

    Args:
        figure: Name of the table or figure, for example `table 1`.
        row: Name of the row.

    Returns:
        `macs`, `paper` or `full`.
    """
    if figure == "figure 8":
        return "macs"
    return "full" if row.startswith(("Meng", "SnapFusion", "BK-SDM", "InstaFlow")) else "paper"
