"""The one package where the API's messages meet the server's own types."""
