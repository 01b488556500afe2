"""The networks as torch modules. Shapes use the letters of ``model_store``; training and export are elsewhere."""
