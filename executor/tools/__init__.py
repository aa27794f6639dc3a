"""The tools a model may call: what they accept, what they would touch, how they are carried out."""
