"""Exchanges of two ranks, every number compared."""
from array import array

from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
assert size == 2, size
peer = 1 - rank
compared = 0


def numbers(of, count, seed):
    """What a rank sends."""
    return array("q", ((of * 1_000_003 + number * 7919 + seed) % (1 << 40) for number in range(count)))


for seed, count in enumerate([1, 7, 128, 1000, 8192, 65536, 300_001]):
    own, other = numbers(rank, count, seed), numbers(peer, count, seed)
    into = array("q", bytes(8 * count))
    world.Sendrecv([own, MPI.INT64_T], peer, seed, [into, MPI.INT64_T], peer, seed)
    assert into == other, ("Sendrecv", count)
    world.Allreduce([own, MPI.INT64_T], [into, MPI.INT64_T], MPI.SUM)
    assert all(total == a + b for total, a, b in zip(into, own, other)), ("Allreduce", count)
    window = MPI.Win.Create(into, 8, comm=world)
    window.Fence()
    window.Put([own, MPI.INT64_T], peer)
    window.Fence()
    assert into == other, ("Put", count)
    window.Free()
    compared += 3 * count
print("rank", rank, "on", MPI.Get_processor_name(), "compared", compared, flush=True)
