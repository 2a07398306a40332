# SPDX-License-Identifier: ZPL-2.1
"""The applications of the peers, as their worker processes import them."""
