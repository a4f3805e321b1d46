"""The page to listen to: Gradio, on this machine or as a Space."""
