"""The helper's part in masked rounds, without I/O: it opens the sum of a set of masks, once a round.

helper      events in, actions out: what is asked, and what becomes of it
asked       which asks are believed, and which sets are opened
opening     a set's cost, signatures, sealed seeds, masks and noise: work for a thread of the host's
noise       independent, or correlated over rounds
spending    what a round's noise costs, by the helper's own ledger
refusal     why a set is not opened
least       what the helper's owner lets be opened
state       what must be on disk before an answer leaves
events      what it hears and does
arriving    an ask, from parts to the whole
"""

from __future__ import annotations
