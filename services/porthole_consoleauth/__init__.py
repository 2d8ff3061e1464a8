# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth: stores console tokens, checks them, and revokes them.

* :mod:`endpoint` answers RPC: the api authorizes a token, the proxy checks it, compute revokes the tokens of an
  instance. It publishes each revocation to the proxies. :mod:`rpcapi` is the client.
* :mod:`token_store` has the rules: when a token is valid, and what a revocation deletes.
* The stores that follow these rules: :mod:`memcached_store`, with one :mod:`memcached_node` for each server, built by
  :mod:`memcached_servers`; and :mod:`memory_store` for ``porthole standalone``.
* :mod:`history` keeps who was at which console, in SQL. Nothing of it is needed to open a console.

The path of a token to its answer: :mod:`endpoint`, a store, :mod:`memcached_node`. :mod:`main` builds the process.
"""
