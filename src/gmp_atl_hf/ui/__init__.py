"""The web page that records or takes an upload, and shows scores: Gradio, on this machine or as a Space."""
