//! What a bottle is: manifest, plan, resolved plan, names, state layout and secrets.
