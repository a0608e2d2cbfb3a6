"""bitvox."""
