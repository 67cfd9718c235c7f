# Warnings are errors; each family catches a class of fault that C lets through.
add_compile_options(-Wall -Wextra -Werror -Wshadow -Wvla -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes
  -Wpointer-arith -Wundef -Wwrite-strings -fno-strict-aliasing -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
add_compile_definitions(_GNU_SOURCE)
if(QUIESCED_SANITIZE)
  add_compile_options(-fsanitize=${QUIESCED_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g -O1)
  add_link_options(-fsanitize=${QUIESCED_SANITIZE})
  if(QUIESCED_SANITIZE MATCHES "address" AND NOT QUIESCED_FUZZER) # the table of globals is not relocated at each start: a quarter of its page faults
    add_compile_options(-fno-pie)
    add_link_options(-no-pie)
  endif()
else()
  # Hardening: PIE, RELRO with immediate binding, stack protector, fortify.
  add_compile_options(-fstack-protector-strong -fstack-clash-protection -fcf-protection)
  add_compile_definitions($<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
  include(CheckPIESupported)
  check_pie_supported()
endif()
add_link_options(-Wl,--as-needed) # a library of the link line that nothing of an executable uses would still be loaded at each start
if(QUIESCED_FAULTS)
  add_compile_definitions(QUIESCED_FAULTS=1)
endif()
