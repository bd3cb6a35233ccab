"""Review of inventories by experts: verdicts, edited outlines and searched ground."""
