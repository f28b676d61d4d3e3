"""A local stand-in for fal's queue API: it speaks the protocol, keeps a ledger, misbehaves on request, and runs no AI.

It exists so that tests, demos and chaos runs need neither an account nor a network. It knows nothing of
darkroom's other packages, reads no environment variable and never claims to be fal: every page, every reply
header and every image says what it is.
"""

NAME = "fal emulator"
BANNER = "fal emulator: a local stand-in for fal's queue API. No AI, no network, no real charges."
SERVER = "fal-emulator (stand-in, no AI)"
