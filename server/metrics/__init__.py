"""Metrics: collectors declared in one place, told what happens in the server's own words, served over
HTTP.
"""
