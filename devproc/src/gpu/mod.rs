//! The models of the gpu process: VGA with Bochs VBE extensions.
