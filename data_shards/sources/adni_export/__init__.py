"""The parts of an ADNI export from LONI IDA: its image tree, its tables, and the rules that join them."""
