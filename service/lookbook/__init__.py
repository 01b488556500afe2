"""The lookbook: a page where people see the service work, and what it asks for beyond the contract of ``/v1``.

A skin like ``service.http``: it reads what is there and computes nothing that answers depend on. ``MODISTE_LOOKBOOK``
turns it off.
"""
