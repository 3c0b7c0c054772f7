"""Small UNets in the shapes of the real ones: growing channels, so that no residual broadcasts unseen."""

from typing import Any

CROSS, DOWN, UP_CROSS, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"

SHAPES: dict[str, dict[str, Any]] = {
    "sd15": dict(block_out_channels=(8, 16, 24, 32), attention_head_dim=2),
    "sd21": dict(block_out_channels=(8, 16, 24, 32), attention_head_dim=(2, 4, 6, 8), use_linear_projection=True),
    "efficient": dict(
        block_out_channels=(8, 16, 24, 32),
        attention_head_dim=2,
        down_block_types=(DOWN, CROSS, CROSS, DOWN),
        up_block_types=(UP, UP_CROSS, UP_CROSS, UP),
    ),
    "sdxl": dict(
        block_out_channels=(8, 16, 24),
        attention_head_dim=(2, 4, 6),
        down_block_types=(DOWN, CROSS, CROSS),
        up_block_types=(UP_CROSS, UP_CROSS, UP),
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 12,
    ),
    "bk_sdm_tiny": dict(
        block_out_channels=(8, 16, 24),
        attention_head_dim=2,
        layers_per_block=1,
        mid_block_type=None,
        down_block_types=(CROSS, CROSS, CROSS),
        up_block_types=(UP_CROSS, UP_CROSS, UP_CROSS),
    ),
    "guided": dict(block_out_channels=(8, 16, 24, 32), attention_head_dim=2, time_cond_proj_dim=16),
}
