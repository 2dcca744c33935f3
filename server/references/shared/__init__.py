"""The tier of the reference cache that replicas share, in Redis. It may cost time; never a request or a picture."""
