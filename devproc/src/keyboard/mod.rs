//! The models of the keyboard process: 8042 controller and PS/2 keyboard.
