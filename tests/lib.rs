//! What the end-to-end tests share: where the captures are, and how the program is run.
