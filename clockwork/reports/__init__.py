"""Tables, figures, HTML reports and wandb runs, made from rows."""
