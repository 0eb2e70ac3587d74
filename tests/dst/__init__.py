"""Deterministic simulation: edgefl's own session and coordinator, on a network and on disks that fail, from one seed.

Design:
  a) A seed decides a schedule: a small federation, what its network is like, and which kinds of fault happen to it.
  b) One thread, one virtual clock, one source of chance: the same seed gives the same run, bit for bit.
  c) The machines run unchanged. Broker, disks and hosts keep the contracts of the real ones, and no more than that:
     order only within a topic, delivery only of what a session still holds, durability only of what has returned.
  d) The checker knows what nobody in the federation does, all updates, all commits and all disks, and compares after
     every step. After some minutes the faults stop, and rounds must commit, with devices that stay in handicap too.

`python -m dst --seed N --trace`, in this folder's parent, replays one schedule; `make soak SEEDS=N` runs many.
"""
