"""The operator's keys of a federation, and the files made from them. Agent and aggregator never import this package.

authority      the TLS authority: P-256 certificates and the list of those that are revoked
federation     what the operator says of the federation
records        what was issued, to whom and until when: the one truth, a file that is replaced whole
private        the operator's private files, and the lock
folder         the operator's folder, and all files that follow from the records
enrolment      what an operator does: init, add, revoke, renew, epoch
batches        fleets that are flashed from one image
bundle         what a device, a viewer, a helper and the aggregator are given
masked_policy  what a device's bundle demands of masked rounds
broker_files   the broker's configuration and access list
report         who is enrolled, and what expires soon
"""

from __future__ import annotations
