"""The paper's tables and figures, and how the project's results compare with them."""
