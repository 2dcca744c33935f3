"""Where the network runs: one small protocol (``base``), and what computes, chosen by name (``registry``).

``slots`` and ``slotted`` keep the rows' conditioning for every backend. ``torch_backend`` computes on a CPU, with
weights from ``packed``; ``compiled`` runs an export on OpenVINO or ONNX Runtime; ``device`` runs torch on a GPU, and
``tensorrt`` builds on it.
"""
