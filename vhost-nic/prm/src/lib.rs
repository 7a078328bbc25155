//! Wire formats of the mlx5 programming interface.
