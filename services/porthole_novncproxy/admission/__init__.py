# SPDX-License-Identifier: Apache-2.0
"""The access decision: whether a client gets its console, and from which VNC server. Nothing of it knows HTTP.

The path of a decision through its parts:

- ``gate`` takes a request's facts and its deadline, and asks the others in order.
- ``access`` decides by rules alone: token, Origin, and the status and words of each refusal.
- ``token_failures`` refuses clients whose tokens were not valid too often.
- ``circuit_breaker`` remembers compute hosts and VNC servers that are silent; ``limits`` counts open consoles.
- ``descriptors`` says when they run out.
- ``host_questions`` asks compute hosts where a VNC server listens, in few calls.
- ``dialler`` shares the threads out among the dials; ``dial`` reaches the VNC server; ``vencrypt`` secures the
  connection.

``probe`` asks a VNC server for its security types, for ``porthole doctor``.
"""
