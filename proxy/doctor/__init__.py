"""What is wrong with a deployment, and how to mend it: looks at everything as an operator would.

walk          every check, in order, each bounded in time
findings      what a check says; pure
files         who may read and write the files
certificate   chain, order, dates and names of the certificate; handshake is what a client makes of it
listeners     whether the proxy runs, and who else has its ports
processes     who listens where on this machine, from /proc
upstream      whether Ollama answers, its version, its models, its cloud
exposure      whether Ollama can be reached beside the proxy
environment   what Ollama logs, from the environment of its process
first_token   how long a tiny request waits for its first token
store         whether the store can be written, its schema, and the room on its disk
keys          whether anybody has a key that holds; pure
issuers       the keys of issuers of JWTs, and the clock against theirs
open_files    whether the limit on open files is enough; pure

In most files `judge…` is pure: what was seen goes in, findings come out. What looks stands beside it.
"""
