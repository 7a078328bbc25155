//! What the daemons of this repository have in common.
