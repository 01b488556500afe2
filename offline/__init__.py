"""Everything before serving: data in, models trained, evaluated and exported into a bundle. torch lives here."""
