"""``cloudlet dev``: the platform, the deploys of what is saved, and everything they have to say."""
