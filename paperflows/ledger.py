"""The ledger placeholder until written."""
