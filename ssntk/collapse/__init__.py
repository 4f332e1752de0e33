from ssntk.collapse import laws as laws
